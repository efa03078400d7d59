package service_test

import (
	"context"
	"database/sql"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/spool"
	"outpost.run/outpost/internal/store/sqlite"
	"outpost.run/outpost/sandbox"
)

// hostClock is the clock of a host that a test boots, suspends and sets.
type hostClock struct {
	mu   sync.Mutex
	wall time.Time
	up   time.Duration
	boot string
}

func newHostClock() *hostClock {
	return &hostClock{wall: time.Date(2030, 5, 1, 12, 0, 0, 0, time.UTC), up: 77 * time.Hour, boot: "first"}
}

func (c *hostClock) Wall() time.Time          { c.mu.Lock(); defer c.mu.Unlock(); return c.wall }
func (c *hostClock) SinceBoot() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.up }
func (c *hostClock) Boot() string             { c.mu.Lock(); defer c.mu.Unlock(); return c.boot }

func (c *hostClock) passes(secs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.up = c.wall.Add(time.Duration(secs)*time.Second), c.up+time.Duration(secs)*time.Second
}

func (c *hostClock) set(secs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(time.Duration(secs) * time.Second)
}

func (c *hostClock) reboots() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.boot = 3*time.Second, c.boot+" next"
}

// still is a runtime whose machines do nothing.
type still struct{ service.Runtime }

func (still) Sync(_ context.Context, known []service.SandboxSpec) (states []service.SandboxState, _ error) {
	for range known {
		states = append(states, service.SandboxState{Status: sandbox.Running})
	}
	return states, nil
}

func (still) Create(context.Context, service.SandboxSpec) (service.SandboxState, error) {
	return service.SandboxState{Status: sandbox.Running}, nil
}

func (still) Exec(_ context.Context, _ string, _ service.ExecSpec, s service.Streams) (service.ExecOutcome, error) {
	return service.ExecOutcome{Reason: sandbox.Exited}, nil
}

func (still) Delete(context.Context, string) error { return nil }

// world is a service that a test restarts, on a host of the test's own.
type world struct {
	*testing.T
	*service.Service
	clock *hostClock
	file  string
	store *sqlite.Store

	runtime service.Runtime
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, clock: newHostClock(), runtime: still{}, file: filepath.Join(t.TempDir(), "outpost.db")}
	w.start()
	t.Cleanup(func() { _ = w.store.Close() })
	return w
}

func (w *world) start() {
	w.Helper()
	var err error
	if w.store, err = sqlite.Open(context.Background(), w.file); err != nil {
		w.Fatal(err)
	}
	output, err := spool.Open(w.TempDir(), 1<<20)
	if err != nil {
		w.Fatal(err)
	}
	w.Service = service.New(service.Config{Queue: noQueue{},
		Policy: policy.Default(), Store: w.store, Runtime: w.runtime, RootToken: "x", Log: slog.New(slog.DiscardHandler), Output: output, Clock: w.clock,
	})
	if err := w.Start(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// restart ends the service as a crash does, and starts it after what happens meanwhile.
func (w *world) restart(meanwhile ...func()) {
	w.Helper()
	if err := w.store.Close(); err != nil {
		w.Fatal(err)
	}
	for _, f := range meanwhile {
		f()
	}
	w.start()
}

func (w *world) make(r sandbox.CreateRequest) string {
	w.Helper()
	r.Language = new("python")
	s, err := w.Create(w.Context(), service.Caller{Namespace: "default", Role: sandbox.Operator}, "default", r, nil)
	if err != nil {
		w.Fatal(err)
	}
	return s.ID
}

// left is how many seconds a sandbox has by its expires_at; gone, that it was deleted.
func (w *world) left(id string) (secs float64, gone bool) {
	w.Helper()
	w.Reap(w.Context())
	s, err := w.Get("default", id)
	if sandbox.CodeOf(err) == sandbox.NotFound {
		return 0, true
	} else if err != nil {
		w.Fatal(err)
	}
	return s.ExpiresAt.Sub(w.clock.Wall()).Seconds(), false
}

// passes lets time go by, and the service see it.
func (w *world) passes(secs int) { w.clock.passes(secs); w.Reap(w.Context()) }

// set sets the wall clock, and lets the service see it.
func (w *world) set(secs int) { w.clock.set(secs); w.Reap(w.Context()) }

const (
	hour = 3600
	year = 365 * 24 * hour
)

func TestTimesHoldWhateverTheWallClockSays(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(*world)
		left float64 // of 1000 seconds
	}{
		{"time passes", func(w *world) { w.passes(300) }, 700},
		{"the clock is set forward while the server runs", func(w *world) { w.set(hour); w.passes(300) }, 700},
		{"the clock is set back while the server runs", func(w *world) { w.set(-hour); w.passes(300) }, 700},
		{"it is set and set right", func(w *world) { w.set(-20 * year); w.passes(100); w.set(20 * year); w.passes(200) }, 700},
		{"it drifts", func(w *world) {
			for range 30 {
				w.passes(10)
				w.clock.mu.Lock()
				w.clock.wall = w.clock.wall.Add(-90 * time.Millisecond)
				w.clock.mu.Unlock()
			}
			w.Reap(w.Context())
		}, 700},
		{"a restart", func(w *world) { w.passes(100); w.restart(func() { w.clock.passes(200) }) }, 700},
		{"set forward while the server is away", func(w *world) { w.restart(func() { w.clock.set(hour); w.clock.passes(300) }) }, 700},
		{"set back while the server is away", func(w *world) { w.restart(func() { w.clock.set(-hour); w.clock.passes(300) }) }, 700},
		{"three restarts, the clock set in each way", func(w *world) {
			for _, by := range []int{hour, -2 * hour, 5} {
				w.set(by)
				w.restart(func() { w.clock.passes(100); w.clock.set(-by / 2) })
			}
		}, 700},
		{"a boot that took 300 seconds by the wall clock", func(w *world) { w.restart(w.clock.reboots, func() { w.clock.set(300) }) }, 700},
		{"set forward, and later a boot", func(w *world) { w.set(hour); w.restart(w.clock.reboots, func() { w.clock.set(300) }) }, 700},
		{"set back, and later a boot", func(w *world) { w.set(-hour); w.restart(w.clock.reboots, func() { w.clock.set(300) }) }, 700},
		{"a boot after which the clock is an hour behind", func(w *world) { w.restart(w.clock.reboots, func() { w.clock.set(-hour) }) }, 1000},
		{"a boot in 1970, and the clock is set right", func(w *world) {
			w.restart(w.clock.reboots, func() { w.clock.set(-60 * year) })
			w.passes(100)
			w.set(60*year + 500)
			w.passes(200)
		}, 700},
		{"a boot in 1970 and another one, the clock right again", func(w *world) {
			w.restart(w.clock.reboots, func() { w.clock.set(-60 * year) })
			w.passes(300)
			w.restart(w.clock.reboots)
		}, 700},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			secs := 1000
			ttl, idle := w.make(sandbox.CreateRequest{TTLSecs: &secs}), w.make(sandbox.CreateRequest{IdleTimeoutSecs: &secs})
			c.then(w)
			for what, id := range map[string]string{"ttl": ttl, "idle": idle} {
				if left, gone := w.left(id); gone || left < c.left-0.2 || left > c.left+0.2 {
					t.Errorf("%s: %v s are left (gone: %v), want %v", what, left, gone, c.left)
				}
			}
			w.passes(int(c.left) - 1)
			for what, id := range map[string]string{"ttl": ttl, "idle": idle} {
				if _, gone := w.left(id); gone {
					t.Errorf("%s: gone a second early", what)
				}
			}
			w.passes(2)
			for what, id := range map[string]string{"ttl": ttl, "idle": idle} {
				if left, gone := w.left(id); !gone {
					t.Errorf("%s: a second late it is still there, with %v s", what, left)
				}
			}
		})
	}
}

func TestAUseIsKeptOnTheLine(t *testing.T) {
	w := newWorld(t)
	secs := 1000
	id := w.make(sandbox.CreateRequest{IdleTimeoutSecs: &secs})
	w.passes(400)
	w.set(hour)
	if _, _, err := w.Exec(w.Context(), "default", id, sandbox.ExecRequest{Code: new("1")}, nil, service.How{}); err != nil {
		t.Fatal(err)
	}
	if left, gone := w.left(id); gone || left < 999 || left > 1001 { // and so it is kept
		t.Errorf("just used: %v s are left (gone: %v)", left, gone)
	}
	w.restart(func() { w.clock.passes(100); w.clock.set(-2 * hour) })
	if left, gone := w.left(id); gone || left < 899 || left > 901 {
		t.Errorf("100 s after the restart: %v s are left (gone: %v)", left, gone)
	}
}

// TestRecordsFromBeforeThereWasALine have their times by the wall clock once.
func TestRecordsFromBeforeThereWasALine(t *testing.T) {
	w := newWorld(t)
	secs := 1000
	ttl, idle := w.make(sandbox.CreateRequest{TTLSecs: &secs}), w.make(sandbox.CreateRequest{IdleTimeoutSecs: &secs})
	w.restart(func() {
		db := w.open()
		defer db.Close() //nolint:errcheck // a test's
		for _, q := range []string{"UPDATE sandboxes SET made = NULL, used = NULL", "DELETE FROM clock"} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		w.clock.passes(100)
	})
	for range 2 {
		for what, id := range map[string]string{"ttl": ttl, "idle": idle} {
			if left, gone := w.left(id); gone || left < 899 || left > 901 {
				t.Errorf("%s: %v s are left (gone: %v)", what, left, gone)
			}
		}
		w.restart(func() { w.clock.set(hour) })
	}
}

func TestAnIdempotencyKeyIsKeptForItsDayWhateverTheWallClockSays(t *testing.T) {
	w := newWorld(t)
	runs := 0
	call := func() {
		t.Helper()
		_, err := w.Once(w.Context(), "root POST /x", "k", [32]byte{1}, func() (service.Answer, error) {
			runs++
			return service.Answer{Status: 200}, nil
		}, func(service.Answer) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
	}
	call()
	w.set(10 * 24 * hour)
	call()
	w.restart(func() { w.clock.set(10 * 24 * hour) })
	call()
	if runs != 1 {
		t.Fatalf("run %d times though no time has passed", runs)
	}
	w.set(-30 * 24 * hour)
	w.passes(25 * hour)
	if call(); runs != 2 {
		t.Errorf("run %d times after a day", runs)
	}
}

func (w *world) open() *sql.DB {
	w.Helper()
	db, err := sql.Open("sqlite", w.file)
	if err != nil {
		w.Fatal(err)
	}
	return db
}

// noQueue has no jobs.
type noQueue struct{ service.Queue }

// Start implements service.Queue.
func (noQueue) Start(context.Context, func(context.Context, service.JobSpec) service.JobOutcome) error {
	return nil
}

// Pause implements service.Queue.
func (noQueue) Pause() {}

func (noQueue) Load(context.Context) (queued, running int, err error) { return 0, 0, nil }

// Close implements service.Queue.
func (noQueue) Close(context.Context) error { return nil }

// preparing is a runtime that takes its time before a program starts.
type preparing struct {
	still
	start   chan struct{}
	resumed chan service.ExecSpec
}

func (p preparing) Exec(ctx context.Context, _ string, e service.ExecSpec, s service.Streams) (service.ExecOutcome, error) {
	if e.Resume != nil {
		p.resumed <- e
		return service.ExecOutcome{Reason: sandbox.Exited}, nil
	}
	<-p.start
	s.Started <- struct{}{}
	<-p.start
	return service.ExecOutcome{Reason: sandbox.Exited}, nil
}

func TestTheTimeOfABackgroundProgramBeginsWithIt(t *testing.T) {
	w := newWorld(t)
	runtime := preparing{start: make(chan struct{}), resumed: make(chan service.ExecSpec)}
	defer close(runtime.start)
	w.runtime = runtime
	w.restart()
	id := w.make(sandbox.CreateRequest{Mode: new(string(sandbox.Stateful))})
	begun := make(chan error)
	go func() {
		_, _, err := w.Exec(t.Context(), "default", id, sandbox.ExecRequest{Command: []string{"x"}, Background: new(true), TimeoutSecs: new(100)}, nil, service.How{})
		begun <- err
	}()
	for w.Load().Execs == 0 { // it is noted before it is prepared
		time.Sleep(time.Millisecond)
	}
	w.clock.passes(60)
	runtime.start <- struct{}{}
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	w.clock.passes(10)
	w.restart()
	if e := <-runtime.resumed; e.Limits.TimeoutMS != 90_000 {
		t.Errorf("after 60 s of preparation and 10 s of 100: %d ms are left", e.Limits.TimeoutMS)
	}
}
