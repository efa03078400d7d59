package node

import (
	"context"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// makeDisk makes the persistent disk that a sandbox asks for. A disk's name tells whose it is: one whose sandbox never
// came to be is the sweep's.
func (n *Node) makeDisk(ctx context.Context, b *box) error {
	s := b.spec
	if s.Disk == nil {
		return nil
	}
	if n.disks == nil {
		return sandbox.Errorf(sandbox.NotSupported, nil, "this server has no persistent disks; leave disk_size_gb out")
	}
	return n.disks.Make(ctx, s.ID, s.Disk.SizeGB)
}

// removeDisk is nil for a sandbox without one. What a machine still writes to it is lost.
func (n *Node) removeDisk(b *box) error {
	if b.spec.Disk == nil || n.disks == nil {
		return nil
	}
	_ = n.machinesEnded(b) // so that nothing of it is left when the deletion answers; one that takes longer is the sweep's
	return n.disks.Remove(b.spec.ID)
}

// mounts are what every machine of the sandbox sees beside its image.
func (n *Node) mounts(b *box) []engine.Mount {
	var all []engine.Mount
	if d := b.spec.Disk; d != nil && n.disks != nil {
		all = append(all, engine.Mount{Kind: engine.DiskMount, Source: n.disks.Path(b.spec.ID), Path: d.MountPath})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(all, b.deviceMounts()...)
}

// sweepDisks removes the disks whose sandbox is not there.
func (n *Node) sweepDisks() {
	if n.disks == nil {
		return
	}
	ids, err := n.disks.List()
	if err != nil {
		n.log.Error("the disks of sandboxes could not be listed", "error", err)
		return
	}
	for _, id := range ids {
		if n.owned(id) {
			continue
		}
		if err := n.disks.Remove(id); err != nil {
			n.log.Error("the disk of a sandbox that is gone could not be removed", "sandbox", id, "error", err)
		}
	}
}
