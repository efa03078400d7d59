package node

import "context"

// Sweep is the sweep of every minute.
func (n *Node) Sweep(ctx context.Context) { n.sweep(ctx) }

// SweepImages is what the sweep does with images.
func (n *Node) SweepImages() { n.sweepImages() }

// Mend is what the sweep does for what could not be had after a restart.
func (n *Node) Mend() { n.mend() }
