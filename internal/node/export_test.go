package node

import "context"

// Sweep is the sweep of every minute.
func (n *Node) Sweep(ctx context.Context) { n.sweep(ctx) }

// SweepImages is what the sweep does with images.
func (n *Node) SweepImages() { n.sweepImages() }
