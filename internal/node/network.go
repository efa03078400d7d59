package node

import (
	"context"
	"net"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/sandbox"
)

// wire is what a living machine has of the network's.
type wire struct {
	inside engine.Network // nil: it is not connected
	link   *network.Link  // nil under egress none
	linked bool           // it has the way out that it may have
}

// connect gives a new machine the way out that it may have; it is called before anything runs in it.
//
// Errors: NotSupported, the host has no tun devices; Lost.
func (n *Node) connect(ctx context.Context, way sandbox.Network, m engine.Machine) error {
	began := time.Now()
	if err := n.wire(ctx, way, m); err != nil {
		n.disconnect(m)
		return err
	}
	n.engine.watcher.MachinePhase(n.engine.name(n.engine.whose(m.Handle())), "connect", time.Since(began))
	return nil
}

// wire does what connect does, and keeps what it could do where it fails.
func (n *Node) wire(ctx context.Context, way sandbox.Network, m engine.Machine) (err error) {
	id := m.Handle().ID
	n.mu.Lock()
	w := n.wires[id]
	n.mu.Unlock()
	if w.linked {
		return nil
	}
	if w.inside == nil {
		if w.inside, err = m.Network(); err != nil {
			return err
		}
	}
	w.link, err = n.net.Connect(ctx, w.inside, network.Egress{Mode: way.Egress, Allow: way.Allow})
	w.linked = err == nil
	n.mu.Lock()
	n.wires[id] = w
	n.mu.Unlock()
	return err
}

// rewire connects a machine that lives on without a network, since it could not be connected when it was taken over.
func (n *Node) rewire(b *box) {
	done, err := n.begin()
	if err != nil {
		return
	}
	defer done()
	b.change.Lock()
	defer b.change.Unlock()
	b.mu.Lock()
	m := b.machine
	b.mu.Unlock()
	if m == nil || b.spec.Mode != sandbox.Stateful {
		return
	}
	limited, cancel := n.bounded(context.Background(), agentTime)
	defer cancel()
	if err := n.wire(limited, b.spec.Network, m); err != nil {
		n.log.Error(noNetwork, "sandbox", b.spec.ID, "error", err)
	}
	b.mu.Lock()
	died := b.machine != m
	b.mu.Unlock()
	if died {
		n.disconnect(m)
	}
}

const noNetwork = "a living machine can't be connected to the network; it is tried every minute"

// disconnect lets go of what connect made, of a machine that ends.
func (n *Node) disconnect(m engine.Machine) {
	if w, ok := n.unwire(m.Handle().ID); ok {
		w.link.End()
		w.inside.Close()
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
		w.inside.Close()
	}
	n.net.Close()
}

// insideOf is nil for a machine that is not connected.
func (n *Node) insideOf(m engine.Machine) engine.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wires[m.Handle().ID].inside
}

// dial reaches a tcp server inside a machine, one on its loopback included.
func (n *Node) dial(ctx context.Context, m engine.Machine, port int) (net.Conn, error) {
	return n.net.Dial(ctx, n.insideOf(m), "tcp", port)
}

// resolver is where the sandbox's programs find their DNS; under none there is none at all.
func resolver(n sandbox.Network) string {
	if n.Egress == network.None {
		return ""
	}
	return network.Resolver().String()
}
