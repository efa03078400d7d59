package node

import (
	"context"
	"sync"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// news are the events that nobody has taken yet.
type news struct {
	mu     sync.Mutex
	events []service.Event
	more   chan struct{} // of one place: filled when there is something
}

func (n *news) tell(e service.Event) {
	n.mu.Lock()
	n.events = append(n.events, e)
	n.mu.Unlock()
	select {
	case n.more <- struct{}{}:
	default:
	}
}

func (n *news) take() []service.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.events
	n.events = nil
	return all
}

// Watch implements service.Runtime. One caller gets each event.
func (n *Node) Watch(ctx context.Context, events chan<- service.Event) error {
	for {
		for _, e := range n.news.take() {
			select {
			case events <- e:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-n.news.more:
		case <-ctx.Done():
			return nil
		}
	}
}

// attend looks after a sandbox's new machine.
func (n *Node) attend(b *box, m engine.Machine) {
	until := (<-chan struct{})(b.ended)
	if b.spec.Mode == sandbox.Stateful {
		go n.watch(b, m)
		until = m.Dead()
	}
	p := &patient{n: n, b: b, began: time.Now(), open: map[int]bool{}}
	p.first()
	go p.look(until)
}

// watch notes that a stateful sandbox's machine has died by itself. After Close it is the next daemon's.
func (n *Node) watch(b *box, m engine.Machine) {
	select {
	case <-m.Dead():
	case <-n.ctx.Done():
		return
	}
	b.change.Lock()
	defer b.change.Unlock()
	if n.bury(b, m) {
		n.news.tell(service.Event{SandboxID: b.spec.ID, Status: sandbox.LostNow})
	}
}

// bury makes a sandbox lost whose machine died by itself; false where it is not that sandbox's any more. b.change is held:
// the next machine has the same id.
func (n *Node) bury(b *box, m engine.Machine) bool {
	b.mu.Lock()
	mine := b.machine == m && !b.gone
	if mine {
		b.machine, b.status, b.remains = nil, sandbox.LostNow, m.Handle().ID
		b.health = sandbox.Health{Status: sandbox.HealthNone}
	}
	b.mu.Unlock()
	if !mine {
		return false
	}
	n.log.Warn("a stateful sandbox's machine died; its files stay", "sandbox", b.spec.ID)
	n.disconnect(m)
	if err := m.Halt(context.Background()); err != nil {
		n.log.Error("what a dead machine left could not be ended", "sandbox", b.spec.ID, "error", err)
	}
	return true
}
