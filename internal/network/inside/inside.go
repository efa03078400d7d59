// Package inside is the inside of a machine's network where that is a network namespace of this host.
package inside

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/sandbox"
)

// Namespace implements engine.Network.
type Namespace struct {
	kernel  *host.Kernel
	sockets *netns.Sockets
	file    *os.File
}

// New takes the namespace's file over.
func New(k *host.Kernel, s *netns.Sockets, file *os.File) *Namespace { return &Namespace{k, s, file} }

// Link implements engine.Network. Error: NotSupported, this host has no tun devices.
func (n *Namespace) Link(_ context.Context, l engine.LinkSpec) (engine.Link, error) {
	f, err := netns.OpenTun(n.kernel, n.file, netns.Tun(l))
	if errors.Is(err, netns.ErrNoDevice) {
		return nil, sandbox.Errorf(sandbox.NotSupported, err, "this host has no %s, which egress needs: ask for network.egress none, or have the operator run modprobe tun", netns.Device)
	}
	if err != nil {
		return nil, err
	}
	return link{f}, nil
}

type link struct{ *os.File }

// Leave implements engine.Link.
func (l link) Leave() error { return netns.Leave(l.File) }

// Dial implements engine.Network.
func (n *Namespace) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	return n.sockets.Dial(ctx, n.file, network, to)
}

// Listen implements engine.Network.
func (n *Namespace) Listen(_ context.Context, address string) (l net.Listener, err error) {
	err = netns.In(n.file, func() (err error) { l, err = net.Listen("tcp4", address); return err })
	return l, err
}

// Close implements engine.Network.
func (n *Namespace) Close() error { return n.file.Close() }
