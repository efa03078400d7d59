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

// startTime lets the line of time go on, and gives the moments of the records on it.
func (s *Service) startTime(ctx context.Context, records []sandbox.Sandbox) (map[string]Moments, error) {
	moments, err := s.store.Moments(ctx)
	if err != nil {
		return nil, err
	}
	var newest time.Time
	for _, r := range records {
		m, kept := moments[r.ID]
		if !kept { // from a server that had no line: it begins as the wall clock
			m = Moments{r.CreatedAt.Time, r.CreatedAt.Time}
			if r.LastUsedAt != nil {
				m.Used = r.LastUsedAt.Time
			}
			moments[r.ID] = m
		}
		for _, t := range []time.Time{m.Made, m.Used} {
			if t.After(newest) {
				newest = t
			}
		}
	}
	s.time, err = openLine(ctx, s.clock, s.store, newest, s.log)
	return moments, err
}

// fresh are the moments of a record that was just made.
func (s *Service) fresh(r sandbox.Sandbox) Moments {
	made := s.time.of(r.CreatedAt.Time)
	return Moments{made, made}
}

// touch notes a use of the sandbox.
func (l *live) touch() { l.used.Store(l.time.now().UnixMilli()) }

// moments are the sandbox's, as the record keeps them.
func (l *live) moments() Moments { return Moments{l.made, time.UnixMilli(l.used.Load())} }

// hold keeps the sandbox from being idle until done is called.
func (l *live) hold() (done func()) {
	l.holds.Add(1)
	l.touch()
	return func() {
		l.touch()
		l.holds.Add(-1)
	}
}

// endOf is when a sandbox of that record, made and last used then, will be deleted by itself, and why; zero for never.
func endOf(r sandbox.Sandbox, m Moments) (end time.Time, reason string) {
	if r.TTLSecs != nil {
		end, reason = m.Made.Add(time.Duration(*r.TTLSecs)*time.Second), "ttl"
	}
	if r.IdleTimeoutSecs != nil {
		if idle := m.Used.Add(time.Duration(*r.IdleTimeoutSecs) * time.Second); end.IsZero() || idle.Before(end) {
			end, reason = idle, "idle"
		}
	}
	return end, reason
}

// lastUse is now for one that something runs in.
func (l *live) lastUse() time.Time {
	if l.holds.Load() > 0 {
		return l.time.now()
	}
	return time.UnixMilli(l.used.Load())
}

// timed fills in what the passing of time says of a record, by the calendar as it is set now.
func timed(r sandbox.Sandbox, l *live) sandbox.Sandbox {
	r.ExpiresAt = nil
	if l == nil {
		return r
	}
	used := l.lastUse()
	at := sandbox.At(l.time.wall(used))
	r.LastUsedAt = &at
	if end, _ := endOf(r, Moments{l.made, used}); !end.IsZero() {
		at := sandbox.At(l.time.wall(end))
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
		now := s.time.now()
		keep := now.Sub(kept) >= keepEvery
		if keep {
			kept = now
		}
		s.reapAll(ctx, keep)
	}
}

// reapAll looks at every sandbox once; keep also keeps their last uses.
func (s *Service) reapAll(ctx context.Context, keep bool) {
	s.time.follow(ctx)
	now := s.time.now()
	for _, l := range s.timedOnes() {
		s.reapOne(ctx, l, now, keep)
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
	if end, reason := endOf(r, Moments{l.made, used}); !end.IsZero() && !end.After(now) {
		if r.Status == sandbox.Failed && keep || r.Status != sandbox.Failed { // what can't be removed is not tried all the time
			s.log.Info("a sandbox's time is over", "sandbox_id", r.ID, "reason", reason)
			err := s.delete(ctx, l, reason)
			if sandbox.CodeOf(err) == sandbox.NotFound { // a call was faster
				return
			}
			s.over(r, reason, err)
			if err != nil {
				s.log.Error("a sandbox whose time is over could not be deleted; it is tried again", "sandbox_id", r.ID, "error", err)
			}
		}
		return
	}
	if keep && r.IdleTimeoutSecs != nil && used.Sub(time.UnixMilli(l.kept.Load())) >= keepEvery {
		s.keepUse(ctx, l, used)
	}
}

func (s *Service) keepUse(ctx context.Context, l *live, used time.Time) {
	l.record.Lock()
	defer l.record.Unlock()
	s.mu.Lock()
	at := sandbox.At(l.time.wall(used))
	l.state.LastUsedAt = &at
	r, gone := l.state, l.ctx.Err() != nil
	s.mu.Unlock()
	if gone {
		return
	}
	if err := s.store.PutSandbox(ctx, r, Moments{l.made, used}); err != nil && ctx.Err() == nil {
		s.log.Error("a sandbox's last use could not be noted", "sandbox_id", r.ID, "error", err)
		return
	}
	l.kept.Store(used.UnixMilli())
}
