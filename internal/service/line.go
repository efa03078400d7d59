package service

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Clock is where the service reads the time. *host.Clock is one.
type Clock interface {
	// Wall is what the calendar says. Somebody may set it, forward or back.
	Wall() time.Time
	// SinceBoot is how long ago the host booted, suspend included; nobody can set it.
	SinceBoot() time.Duration
	// Boot is another text after each boot.
	Boot() string
}

// ClockNote is what is kept of the line of time, so that it goes on after a restart.
type ClockNote struct {
	Boot   string
	Origin time.Time     // what the line said when the host booted
	Ahead  time.Duration // of the wall clock before the line
	Seen   time.Time     // the line has come so far
}

// Moments are when a sandbox was made and last used, on the line of time.
type Moments struct{ Made, Used time.Time }

// line is the time that lengths are measured on. It began as the wall clock and is moved by nothing but the passing of time: while
// the host runs it goes with the time since boot, whatever becomes of the wall clock and of this process. Only over a boot does the
// wall clock say how long that took, and then never less than nothing.
type line struct {
	clock Clock
	store Store
	log   *slog.Logger

	mu     sync.Mutex
	boot   string
	origin time.Time
	ahead  time.Duration
}

// The wall clock may drift by steady before that is noticed: so moments that were said once are said alike again. By more than aStep it
// did not drift but was set.
const (
	steady = 100 * time.Millisecond
	aStep  = time.Second
)

// openLine lets the line go on. newest is the latest moment that anything is noted at: the line is never before that.
func openLine(ctx context.Context, clock Clock, store Store, newest time.Time, log *slog.Logger) (*line, error) {
	note, noted, err := store.Clock(ctx)
	if err != nil {
		return nil, err
	}
	boot, wall := clock.SinceBoot(), clock.Wall().Round(0)
	now := wall
	switch {
	case noted && note.Boot == clock.Boot():
		now = note.Origin.Add(boot)
	case noted:
		now = wall.Add(-note.Ahead)
	}
	for _, passed := range []time.Time{note.Seen, newest} {
		if now.Before(passed) {
			now = passed
		}
	}
	l := &line{clock: clock, store: store, log: log, boot: clock.Boot(), origin: now.Add(-boot), ahead: note.Ahead}
	l.reckon()
	return l, l.note(ctx)
}

// now is the present on the line.
func (l *line) now() time.Time { return l.origin.Add(l.clock.SinceBoot()) }

// wall is what the calendar says of a moment of the line, as it is set now.
func (l *line) wall(t time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return t.Add(l.ahead)
}

// of is the moment of the line at which the calendar, as it is set now, said t, which is past.
func (l *line) of(t time.Time) time.Time {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if t = t.Add(-l.ahead); t.After(now) { // it drifted
		return now.Truncate(time.Millisecond)
	}
	return t
}

// reckon looks where the wall clock is, and says by how much it was set, if it was.
func (l *line) reckon() (by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ahead := l.clock.Wall().Sub(l.now()).Round(time.Millisecond)
	if by = ahead - l.ahead; by.Abs() < steady {
		return 0
	}
	l.ahead = ahead
	return by
}

// follow keeps how far the wall clock is ahead, where somebody set it.
func (l *line) follow(ctx context.Context) {
	by := l.reckon()
	if by == 0 {
		return
	}
	if by.Abs() >= aStep {
		l.log.Info("the wall clock was set; the times of sandboxes go on as they were", "by", by)
	}
	if err := l.note(ctx); err != nil && ctx.Err() == nil {
		l.log.Error("that the wall clock was set could not be noted", "error", err)
	}
}

func (l *line) note(ctx context.Context) error {
	l.mu.Lock()
	n := ClockNote{Boot: l.boot, Origin: l.origin, Ahead: l.ahead, Seen: l.now()}
	l.mu.Unlock()
	return l.store.PutClock(ctx, n)
}

// processClock is for a service that is given no clock: for it each start is a boot.
type processClock struct{ began time.Time }

func (processClock) Wall() time.Time            { return time.Now() }
func (c processClock) SinceBoot() time.Duration { return time.Since(c.began) }
func (c processClock) Boot() string             { return "process " + c.began.String() }
