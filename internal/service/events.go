package service

import (
	"context"
	"sync"
	"time"

	"outpost.run/outpost/sandbox"
)

// eventLife is how long an event can be asked for.
const eventLife = 7 * 24 * time.Hour

// bell rings when there is a new event, for all who listen.
type bell struct {
	mu   sync.Mutex
	rung chan struct{}
}

func newBell() *bell { return &bell{rung: make(chan struct{})} }

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.rung)
	b.rung = make(chan struct{})
}

func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rung
}

// note keeps an event of a sandbox and tells those who listen.
func (s *Service) note(ctx context.Context, namespace string, e sandbox.Event) {
	e.At = sandbox.Now()
	if _, err := s.store.AddEvent(context.WithoutCancel(ctx), namespace, e); err != nil {
		s.log.Error("an event could not be noted", "sandbox_id", e.SandboxID, "type", e.Type, "error", err)
		return
	}
	s.events.ring()
}

// Events gives tell those of a namespace, or of one of its sandboxes, that come after since, and then each new one as it
// comes, until ctx ends or tell fails. since nil: only new ones.
//
// Errors: NotFound, no such sandbox is there and none was.
func (s *Service) Events(ctx context.Context, namespace, id string, since *uint64, tell func(sandbox.Event) error) error {
	q := EventQuery{Namespace: namespace, SandboxID: id, Most: 256}
	if id != "" {
		if err := s.wasThere(ctx, q); err != nil {
			return err
		}
	}
	if since == nil {
		last, err := s.store.LastEvent(ctx)
		if err != nil {
			return err
		}
		since = &last
	}
	for q.Since = *since; ; {
		more := s.events.next()
		all, err := s.store.Events(ctx, q)
		if err != nil {
			return err
		}
		for _, e := range all {
			if err := tell(e); err != nil {
				return err
			}
			q.Since = e.Seq
			if id != "" && e.Type == sandbox.DeletedEvent { // nothing comes after it
				return nil
			}
		}
		if len(all) == q.Most {
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Service) wasThere(ctx context.Context, q EventQuery) error {
	if _, _, err := s.find(q.Namespace, q.SandboxID); err == nil {
		return nil
	}
	q.Most = 1
	all, err := s.store.Events(ctx, q)
	if err == nil && len(all) == 0 {
		return noSandbox()
	}
	return err
}

// follow takes what the runtime tells of sandboxes, until ctx ends.
func (s *Service) follow(ctx context.Context) {
	events := make(chan Event)
	go func() {
		if err := s.runtime.Watch(ctx, events); err != nil && ctx.Err() == nil {
			s.log.Error("the runtime's events have ended", "error", err)
		}
	}()
	for {
		select {
		case e := <-events:
			s.happened(ctx, e)
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) happened(ctx context.Context, e Event) {
	s.mu.Lock()
	l := s.live[e.SandboxID]
	s.mu.Unlock()
	if l == nil || s.Draining() {
		return
	}
	if e.Status != "" {
		l.turning.Lock() // a start may have come between the loss and its news
		defer l.turning.Unlock()
		if state, err := s.runtime.Inspect(ctx, e.SandboxID); err != nil || state.Status != e.Status {
			return
		}
	}
	_, err := s.change(ctx, l, "lost", func(r *sandbox.Sandbox) {
		if e.Status != "" && r.Status == sandbox.Running {
			r.Status, r.Isolation = e.Status, notInForce(r.Isolation)
			r.Health = sandbox.Health{Status: sandbox.HealthNone}
		}
		if e.Health != nil && r.Status == sandbox.Running {
			r.Health = *e.Health
		}
	})
	if err != nil {
		s.log.Error("a sandbox's state could not be noted", "sandbox_id", e.SandboxID, "error", err)
	}
}
