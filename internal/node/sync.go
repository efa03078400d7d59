package node

import (
	"context"
	"sync"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Sync implements service.Runtime.
func (n *Node) Sync(ctx context.Context, known []service.SandboxSpec) ([]service.SandboxState, error) {
	n.mu.Lock()
	again := n.synced
	n.synced = true
	n.mu.Unlock()
	if again {
		return nil, sandbox.Errorf(sandbox.Conflict, nil, "the runtime was told already which sandboxes exist")
	}
	handles, err := n.engine.List(ctx)
	if err != nil {
		return nil, sandbox.Errorf(sandbox.Internal, err, "what a former server left could not be listed")
	}
	found := map[string]engine.Handle{}
	for _, h := range handles {
		if h.Stateful && h.SandboxID != "" {
			found[h.SandboxID] = h
		}
	}
	states := make([]service.SandboxState, len(known))
	var work sync.WaitGroup
	turn := make(chan struct{}, adoptions)
	for i, s := range known {
		b := newBox(s)
		b.image, _ = n.madeFrom(s)
		if err := n.findGPUs(b); err != nil {
			n.log.Error("a sandbox's GPUs can't be found", "sandbox", s.ID, "error", err)
		}
		turn <- struct{}{}
		work.Go(func() {
			defer func() { <-turn }()
			if s.Mode == sandbox.Stateful {
				n.adopt(ctx, b, found[s.ID])
			}
			n.republish(b)
			n.mu.Lock()
			n.boxes[s.ID] = b
			n.mu.Unlock()
			states[i] = b.state()
		})
	}
	work.Wait()
	n.sweep(ctx)
	n.sweepThings()
	close(n.recovered)
	return states, nil
}

// adoptions are those under way at once: one that hangs only waits.
const adoptions = 32

// adopt takes a stateful sandbox's living machine over, or says that it is lost and keeps its files.
func (n *Node) adopt(ctx context.Context, b *box, h engine.Handle) {
	b.status = sandbox.LostNow
	if !b.spec.Started {
		b.status = sandbox.Stopped
	}
	if h.ID == "" {
		return
	}
	n.mu.Lock()
	n.machines[h.ID] = true
	n.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, agentTime) // one that hangs must not hold the server's start up
	defer cancel()
	m, err := engine.Machine(nil), error(nil)
	if b.spec.Started {
		m, err = n.engine.Recover(limited, h)
	}
	if err != nil || m == nil {
		b.remains = h.ID
		if b.spec.Started {
			n.log.Warn("a stateful sandbox's machine did not live on; its files stay", "sandbox", b.spec.ID, "error", err)
		}
		if err := n.engine.Halt(ctx, h); err != nil {
			n.log.Error("what a dead machine left could not be ended", "sandbox", b.spec.ID, "error", err)
		}
		return
	}
	if err := n.wire(limited, b.spec.Network, m); err != nil { // what runs in it is worth more
		n.log.Error(noNetwork, "sandbox", b.spec.ID, "error", err)
	}
	b.machine, b.isolation, b.status = m, m.Isolation(), sandbox.Running
	n.attend(b, m)
}

// sweep removes what carries our mark and has no owner.
func (n *Node) sweep(ctx context.Context) {
	handles, err := n.engine.List(ctx)
	if err != nil {
		n.log.Error("sweep", "error", err)
		return
	}
	var work sync.WaitGroup
	turn := make(chan struct{}, 8)
	for _, h := range handles {
		n.mu.Lock()
		owned := n.machines[h.ID]
		n.mu.Unlock()
		if owned {
			continue
		}
		work.Add(1)
		turn <- struct{}{}
		go func() {
			defer func() { <-turn; work.Done() }()
			if err := n.engine.Remove(ctx, h); err != nil {
				n.log.Error("what a former server left can't be removed", "machine", h.ID, "error", err)
			}
		}()
	}
	work.Wait()
}

func (n *Node) sweepEvery(every time.Duration) {
	select {
	case <-n.recovered:
	case <-n.ctx.Done():
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.sweep(n.ctx)
			n.mend()
			n.sweepThings()
		case <-n.ctx.Done():
			return
		}
	}
}
