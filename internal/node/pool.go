package node

import (
	"context"
	"runtime"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/pool"
)

// PoolBounds are what the pool of machines may hold in sum; without MaxIdle there is none, and every program starts cold.
type PoolBounds struct {
	MaxIdle  int
	MaxBytes int64
}

func (n *Node) openPool(b PoolBounds) {
	if b.MaxIdle <= 0 {
		return
	}
	n.pool = pool.New(pool.Options{
		MaxIdle: b.MaxIdle, MaxBytes: b.MaxBytes, Makers: max(1, runtime.NumCPU()/2), Low: pool.HostIsLow, Log: n.log,
	})
}

// Pool says what the pool of machines has and did.
func (n *Node) Pool() pool.State {
	if n.pool == nil {
		return pool.State{}
	}
	return n.pool.State()
}

// pooled is a machine that is nobody's yet.
type pooled struct {
	engine.Machine
	n *Node
}

// Alive implements pool.Item.
func (p pooled) Alive() bool { return alive(p.Machine) }

// End implements pool.Item.
func (p pooled) End() { p.n.end(p.Machine) }

// lease takes a machine of the recipe from the pool and makes it the sandbox's; nil where there is none. kept says whether such
// machines are kept there.
func (n *Node) lease(ctx context.Context, b *box, r recipe) (m engine.Machine, kept bool) {
	if n.pool == nil || !r.poolable() {
		return nil, false
	}
	item, kept := n.pool.Take(ctx, r.key(), b.spec.Namespace, func(ctx context.Context) (pool.Item, error) { return n.makePooled(ctx, r) })
	return n.hand(item, b), kept
}

// leaseSpare takes one that is there, and lets none be made for that.
func (n *Node) leaseSpare(b *box, r recipe) engine.Machine { return n.hand(n.pool.Spare(r.key()), b) }

// hand makes a machine of the pool the sandbox's.
func (n *Node) hand(item pool.Item, b *box) engine.Machine {
	if item == nil {
		return nil
	}
	m := item.(pooled).Machine
	if err := m.Lease(b.spec.ID); err != nil {
		n.log.Warn("a machine of the pool could not be leased", "error", err)
		n.end(m)
		return nil
	}
	return m
}

// warmTime is how long an interpreter may take to start ahead. A program waits for the one of its machine, and gets a new one
// where it does not come: under a low limit of processes, node waits for threads that it never gets.
const warmTime = 5 * time.Second

// makePooled makes a machine for the pool, its interpreter running.
func (n *Node) makePooled(ctx context.Context, r recipe) (pool.Item, error) {
	m, err := n.make(ctx, r, engine.Pooled, nil)
	if err != nil {
		return nil, err
	}
	if r.warm != nil {
		if err := n.warmUp(ctx, m, *r.warm); err != nil {
			n.end(m)
			return nil, err
		}
	}
	_ = m.Isolation() // is read now, while nobody waits for it
	return pooled{m, n}, nil
}

// warmUp starts an interpreter in a machine's waiting process. Where that fails, an exec of it says why, started cold.
func (n *Node) warmUp(ctx context.Context, m engine.Machine, w agent.Warm) error {
	limited, cancel := n.bounded(ctx, warmTime)
	defer cancel()
	err := m.Warm(limited, w)
	if err != nil {
		n.log.Debug("an interpreter could not be started ahead", "error", err)
	}
	return err
}
