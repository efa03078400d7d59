package node

import (
	"context"
	"sync/atomic"
	"time"
)

// chores are what has to be done, but not now: removing a machine takes as much of the processors as running a small program. They
// wait while execs follow one another, but not for long and not many of them. What a program started is dead before.
type chores struct {
	ctx  context.Context // when it ends they wait no more
	last atomic.Int64    // when an exec or its machine was last asked for or answered, in nanoseconds
	todo atomic.Int32
	hand chan struct{} // held by those under way
}

const (
	choreQuiet = 4 * time.Millisecond   // without a call: there is time
	choreTime  = 250 * time.Millisecond // the longest that one waits
	choresMost = 32                     // that wait
	choreHands = 4                      // at once; one may hang for some seconds
)

func newChores(ctx context.Context) *chores {
	return &chores{ctx: ctx, hand: make(chan struct{}, choreHands)}
}

// heard notes that someone waits for an answer, or had one.
func (c *chores) heard() { c.last.Store(time.Now().UnixNano()) }

// add lets f be done soon.
func (c *chores) add(f func()) {
	c.todo.Add(1)
	go func() {
		c.wait()
		select {
		case c.hand <- struct{}{}:
			defer func() { <-c.hand }()
		case <-time.After(choreTime): // those under way hang
		}
		c.todo.Add(-1)
		f()
	}()
}

func (c *chores) wait() {
	tick := time.NewTicker(choreQuiet)
	defer tick.Stop()
	for end := time.Now().Add(choreTime); c.todo.Load() <= choresMost; {
		select {
		case now := <-tick.C:
			if now.After(end) || now.UnixNano()-c.last.Load() > int64(choreQuiet) {
				return
			}
		case <-c.ctx.Done():
			return
		}
	}
}
