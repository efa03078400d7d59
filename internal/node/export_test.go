package node

import "context"

// Sweep is the sweep of every minute.
func (n *Node) Sweep(ctx context.Context) { n.sweep(ctx) }
