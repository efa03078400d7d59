package node

import (
	"context"
	"net"
	"os"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/sandbox"
)

// wire is what a living machine has of the network's.
type wire struct {
	ns   *os.File      // its network namespace
	link *network.Link // nil under egress none
}

// connect gives a machine the way out that its sandbox may have; it is called before anything runs in it, and after a
// recovery.
//
// Errors: NotSupported, the host has no tun devices; Lost.
func (n *Node) connect(ctx context.Context, b *box, m engine.Machine) error {
	ns, err := m.NetworkNamespace()
	if err != nil {
		return err
	}
	link, err := n.net.Connect(ctx, ns, network.Egress{Mode: b.spec.Network.Egress, Allow: b.spec.Network.Allow})
	if err != nil {
		ns.Close()
		return err
	}
	n.mu.Lock()
	n.wires[m.Handle().ID] = wire{ns, link}
	n.mu.Unlock()
	return nil
}

// disconnect lets go of what connect made, of a machine that ends.
func (n *Node) disconnect(m engine.Machine) {
	if w, ok := n.unwire(m.Handle().ID); ok {
		w.link.End()
		w.ns.Close()
	}
}

func (n *Node) unwire(id string) (wire, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, ok := n.wires[id]
	delete(n.wires, id)
	return w, ok
}

// hangUp lets go of the network of all machines, which live on.
func (n *Node) hangUp() {
	n.mu.Lock()
	wires := n.wires
	n.wires = map[string]wire{}
	n.mu.Unlock()
	for _, w := range wires {
		w.link.Close()
		w.ns.Close()
	}
	n.net.Close()
}

// namespaceOf is nil for a machine that is not connected.
func (n *Node) namespaceOf(m engine.Machine) *os.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wires[m.Handle().ID].ns
}

// dial reaches a tcp server inside a machine, one on its loopback included.
func (n *Node) dial(ctx context.Context, m engine.Machine, port int) (net.Conn, error) {
	return n.net.Dial(ctx, n.namespaceOf(m), "tcp", port)
}

// resolver is where the sandbox's programs find their DNS; under none there is none at all.
func resolver(n sandbox.Network) string {
	if n.Egress == network.None {
		return ""
	}
	return network.Resolver().String()
}
