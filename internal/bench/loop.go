// Package bench measures a server beside bare, the same program started on the host without isolation: loops, histograms,
// what the host spends, and the rows of `outpost bench`.
package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Plan says how calls follow each other.
type Plan struct {
	Clients int           // that each make one call after the other; 0: each call begins when it is due, whatever the others do
	Count   int           // of calls in all; 0: as many as begin within For
	For     time.Duration // from the first call on
	Every   time.Duration // calls are due on this grid; 0: as soon as a client is free
	GoOn    bool          // a call that failed is counted; else it ends the run
}

// Sample is what a run of a plan gave.
type Sample struct {
	Micros      []int64       `json:"micros"` // of the calls that succeeded, each from the moment when it was due
	Failures    int64         `json:"failures"`
	Failure     string        `json:"failure"` // the first
	Elapsed     time.Duration `json:"elapsed"` // until the last call had ended
	OwnCPU      time.Duration `json:"own_cpu"` // processor time of the process that made the calls
	ChildrenCPU time.Duration `json:"children_cpu"`
}

// Run makes the calls. What a call takes is counted from the moment when it was due: where a slow one keeps its client
// from making the next ones in time, they are slow too, as they are for whoever waits for them. Nothing is omitted. What clears up follows each call that
// succeeded and is not counted; it may keep its client from the next one.
func (p Plan) Run(ctx context.Context, call func(context.Context) error, clearUp ...func(context.Context) error) (Sample, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := &run{plan: p, call: call, clearUp: clearUp, stop: stop}
	own, children := rusage()
	r.began = time.Now()
	var all sync.WaitGroup
	for range p.Clients {
		all.Go(func() { r.client(ctx) })
	}
	if p.Clients == 0 {
		r.dispatch(ctx, &all)
	}
	all.Wait()
	r.sample.Elapsed = time.Since(r.began)
	ownAfter, childrenAfter := rusage()
	r.sample.OwnCPU, r.sample.ChildrenCPU = ownAfter-own, childrenAfter-children
	return r.sample, context.Cause(ctx)
}

type run struct {
	plan    Plan
	call    func(context.Context) error
	clearUp []func(context.Context) error
	stop    context.CancelCauseFunc
	began   time.Time

	mu     sync.Mutex
	given  int
	sample Sample
}

// next gives the next call's number and when it is due; none after the last.
func (r *run) next(ctx context.Context) (due time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	due = time.Now()
	if r.plan.Every > 0 {
		due = r.began.Add(time.Duration(r.given) * r.plan.Every)
	}
	over := r.plan.Count > 0 && r.given >= r.plan.Count || r.plan.Count == 0 && due.Sub(r.began) >= r.plan.For
	if over || ctx.Err() != nil {
		return due, false
	}
	r.given++
	return due, true
}

// client makes one call after the other.
func (r *run) client(ctx context.Context) {
	for {
		due, ok := r.next(ctx)
		if !ok || !until(ctx, due) {
			return
		}
		r.once(ctx, due)
	}
}

// dispatch lets each call begin when it is due.
func (r *run) dispatch(ctx context.Context, all *sync.WaitGroup) {
	for {
		due, ok := r.next(ctx)
		if !ok || !until(ctx, due) {
			return
		}
		all.Go(func() { r.once(ctx, due) })
	}
}

func (r *run) once(ctx context.Context, due time.Time) {
	err := r.call(ctx)
	took := time.Since(due)
	if err == nil {
		for _, f := range r.clearUp {
			if err := f(ctx); err != nil {
				r.stop(fmt.Errorf("after a call: %w", err))
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.sample.Micros = append(r.sample.Micros, took.Microseconds())
		return
	}
	if r.sample.Failures++; r.sample.Failure == "" {
		r.sample.Failure = err.Error()
	}
	if !r.plan.GoOn {
		r.stop(fmt.Errorf("call %d: %w", len(r.sample.Micros)+1, err))
	}
}

// until waits, unless ctx ends first.
func until(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// rusage is the processor time of this process, and of the children it has waited for.
func rusage() (own, children time.Duration) {
	of := func(who int) time.Duration {
		var u unix.Rusage
		_ = unix.Getrusage(who, &u) // fails for bad arguments alone
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return of(unix.RUSAGE_SELF), of(unix.RUSAGE_CHILDREN)
}

// add joins what two runs gave.
func (s *Sample) add(more Sample) {
	s.Micros = append(s.Micros, more.Micros...)
	if s.Failures += more.Failures; s.Failure == "" {
		s.Failure = more.Failure
	}
	s.Elapsed, s.OwnCPU, s.ChildrenCPU = s.Elapsed+more.Elapsed, s.OwnCPU+more.OwnCPU, s.ChildrenCPU+more.ChildrenCPU
}
