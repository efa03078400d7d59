package node

import (
	"context"
	"net"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// connect gives a machine the way out that its sandbox may have; it is called before anything runs in it, and after a
// recovery.
func (n *Node) connect(_ context.Context, _ *box, _ engine.Machine) error { return nil }

// dial reaches a tcp server inside a machine, one on its loopback included.
func (n *Node) dial(_ context.Context, _ engine.Machine, _ int) (net.Conn, error) {
	return nil, sandbox.Errorf(sandbox.NotSupported, nil, "servers inside a machine can't be reached yet")
}

// disconnect lets go of what connect made.
func (n *Node) disconnect(_ engine.Machine) {}
