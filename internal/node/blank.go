package node

import (
	"context"
	"fmt"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/pool"
)

// pooledBlank is the beginning of a machine in the pool: for whoever finds no whole one there.
type pooledBlank struct {
	engine.Blank
	n *Node
}

// Alive implements pool.Item.
func (p pooledBlank) Alive() bool { return alive(p.Blank) }

// End implements pool.Item.
func (p pooledBlank) End() { p.n.later(func() { p.n.removeBlank(p.Blank) }) }

// takeBlank takes the beginning of a machine of the recipe, for a namespace; nil: there is none. Where whole machines are kept it takes
// one that is there, and lets none be made.
func (n *Node) takeBlank(ctx context.Context, namespace string, r recipe, kept bool) engine.Blank {
	if n.pool == nil || r.spec.Stateful || r.spec.Security.JailerEnabled {
		return nil
	}
	key := fmt.Sprintf("blank %d", r.spec.Limits.DiskMB)
	var item pool.Item
	if kept {
		item = n.pool.Spare(key)
	} else {
		item, _ = n.pool.Take(ctx, key, namespace, func(ctx context.Context) (pool.Item, error) { return n.makeBlank(ctx, r.spec.Limits.DiskMB) })
	}
	if item == nil {
		return nil
	}
	return item.(pooledBlank).Blank
}

func (n *Node) makeBlank(ctx context.Context, diskMB int) (pool.Item, error) {
	id, err := n.own()
	if err != nil {
		return nil, err
	}
	limited, cancel := n.bounded(ctx, startTime)
	defer cancel()
	b, err := n.engine.Blank(limited, id, diskMB)
	if err != nil {
		n.disown(id)
		return nil, err
	}
	return pooledBlank{b, n}, nil
}

func (n *Node) removeBlank(b engine.Blank) {
	defer n.disown(b.ID())
	if err := b.Stop(context.Background()); err != nil {
		n.log.Error("what was made ahead could not be removed; the sweep tries again", "machine", b.ID(), "error", err)
	}
}
