package node

import (
	"context"
	"outpost.run/outpost/internal/service"
)

// Sweep is the sweep of every minute.
func (n *Node) Sweep(ctx context.Context) { n.sweep(ctx) }

// SweepImages is what the sweep does with images.
func (n *Node) SweepImages() { n.sweepImages() }

// Mend is what the sweep does for what could not be had after a restart.
func (n *Node) Mend() { n.mend() }

// MayStartWarm says whether a program of an ephemeral sandbox may be run by an interpreter that was started ahead for it.
func MayStartWarm(s service.SandboxSpec, image [][2]string, e service.ExecSpec) bool {
	b := newBox(s)
	b.image.Config.Env = image
	return warmWith(b, e) != nil
}
