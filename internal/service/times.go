package service

import (
	"context"
	"time"

	"outpost.run/outpost/sandbox"
)

const (
	reapEvery = 250 * time.Millisecond
	keepEvery = 5 * time.Second // so much of the last use may be forgotten by a crash
)

// touch notes a use of the sandbox.
func (l *live) touch() { l.used.Store(time.Now().UnixMilli()) }

// hold keeps the sandbox from being idle until done is called.
func (l *live) hold() (done func()) {
	l.holds.Add(1)
	l.touch()
	return func() {
		l.touch()
		l.holds.Add(-1)
	}
}

// end is when a sandbox of that record, last used then, will be deleted by itself, and why; zero for never.
func endOf(r sandbox.Sandbox, used time.Time) (end time.Time, reason string) {
	if r.TTLSecs != nil {
		end, reason = r.CreatedAt.Add(time.Duration(*r.TTLSecs)*time.Second), "ttl"
	}
	if r.IdleTimeoutSecs != nil {
		if idle := used.Add(time.Duration(*r.IdleTimeoutSecs) * time.Second); end.IsZero() || idle.Before(end) {
			end, reason = idle, "idle"
		}
	}
	return end, reason
}

// lastUse is now for one that something runs in.
func (l *live) lastUse() time.Time {
	if l.holds.Load() > 0 {
		return time.Now()
	}
	return time.UnixMilli(l.used.Load())
}

// timed fills in what the passing of time says of a record.
func timed(r sandbox.Sandbox, l *live) sandbox.Sandbox {
	r.ExpiresAt = nil
	if l == nil {
		return r
	}
	used := l.lastUse()
	at := sandbox.At(used)
	r.LastUsedAt = &at
	if end, _ := endOf(r, used); !end.IsZero() {
		at := sandbox.At(end)
		r.ExpiresAt = &at
	}
	return r
}

// reap deletes sandboxes whose time is over, until ctx ends. Times lie in the records: a restart forgets none.
func (s *Service) reap(ctx context.Context) {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	var kept time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.Draining() {
			return
		}
		now := time.Now()
		keep := now.Sub(kept) >= keepEvery
		if keep {
			kept = now
		}
		for _, l := range s.timedOnes() {
			s.reapOne(ctx, l, now, keep)
		}
	}
}

// timedOnes are the sandboxes that end by themselves.
func (s *Service) timedOnes() []*live {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*live
	for _, l := range s.live {
		if (l.state.TTLSecs != nil || l.state.IdleTimeoutSecs != nil) && l.ctx.Err() == nil {
			all = append(all, l)
		}
	}
	return all
}

func (s *Service) reapOne(ctx context.Context, l *live, now time.Time, keep bool) {
	s.mu.Lock()
	r := l.state
	s.mu.Unlock()
	used := l.lastUse()
	if end, reason := endOf(r, used); !end.After(now) {
		if r.Status == sandbox.Failed && keep || r.Status != sandbox.Failed { // what can't be removed is not tried all the time
			s.log.Info("a sandbox's time is over", "sandbox_id", r.ID, "reason", reason)
			if err := s.delete(ctx, l, reason); err != nil && sandbox.CodeOf(err) != sandbox.NotFound {
				s.log.Error("a sandbox whose time is over could not be deleted; it is tried again", "sandbox_id", r.ID, "error", err)
			}
		}
		return
	}
	if keep && r.IdleTimeoutSecs != nil && (r.LastUsedAt == nil || used.Sub(r.LastUsedAt.Time) >= keepEvery) {
		s.keepUse(ctx, l, used)
	}
}

func (s *Service) keepUse(ctx context.Context, l *live, used time.Time) {
	l.record.Lock()
	defer l.record.Unlock()
	s.mu.Lock()
	at := sandbox.At(used)
	l.state.LastUsedAt = &at
	r, gone := l.state, l.ctx.Err() != nil
	s.mu.Unlock()
	if gone {
		return
	}
	if err := s.store.PutSandbox(ctx, r); err != nil && ctx.Err() == nil {
		s.log.Error("a sandbox's last use could not be noted", "sandbox_id", r.ID, "error", err)
	}
}
