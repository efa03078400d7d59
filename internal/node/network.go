package node

import (
	"context"

	"outpost.run/outpost/internal/engine"
)

// connect gives a machine the way out that its sandbox may have; it is called before anything runs in it, and after a
// recovery.
func (n *Node) connect(_ context.Context, _ *box, _ engine.Machine) error { return nil }

// disconnect lets go of what connect made.
func (n *Node) disconnect(_ engine.Machine) {}
