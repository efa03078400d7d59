package node

import (
	"context"
	"errors"
)

// equip gives a new sandbox what it has beside its machines: devices, a disk and published ports. On error it has nothing of it.
func (n *Node) equip(ctx context.Context, b *box) error {
	n.mu.Lock()
	n.making[b.spec.ID] = true
	n.mu.Unlock()
	for _, step := range []func(context.Context, *box) error{n.takeGPUs, n.makeDisk, n.publish, n.pinImage} {
		if err := step(ctx, b); err != nil {
			return errors.Join(err, n.strip(b))
		}
	}
	return nil
}

// equipped says that a sandbox's things have their owner, or are gone.
func (n *Node) equipped(b *box) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.making, b.spec.ID)
}

// strip takes a sandbox's things away; its machines are gone. What can't be removed now is the sweep's.
func (n *Node) strip(b *box) error {
	n.unpublish(b)
	return errors.Join(n.removeDisk(b), n.freeGPUs(b), n.images.Unpin(b.spec.ID))
}

// owned says whether a sandbox is here or is just being made.
func (n *Node) owned(sandboxID string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.boxes[sandboxID] != nil || n.making[sandboxID]
}

// sweepThings takes away what sandboxes had that are not there.
func (n *Node) sweepThings() {
	n.sweepDisks()
	n.sweepGPUs()
	n.sweepImages()
}
