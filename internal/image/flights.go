package image

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"outpost.run/outpost/sandbox"
)

// flight is one pull or build under way and what its waiters see of it.
type flight struct {
	ref       string
	namespace string        // whose first request it was; "" for the host
	done      chan struct{} // closed when img and err are there
	changed   chan struct{} // closed and replaced with each step
	now       Progress
	waiting   int // callers
	cancel    context.CancelFunc
	forsaken  *time.Timer // ends it; runs while nobody waits
	img       Image
	err       error
}

// What one namespace may have of the store's time. A registry can make a pull last as long as it likes.
const (
	flightsOfOne = 16 // under way or waiting for their turn
	pullsAtOnce  = 8
	pullsOfOne   = 2
	buildsOfOne  = 1 // that wait for the one build of packages at a time
)

// forsakenAfter is how long a pull or build goes on when nobody waits: a client comes back until it is there. A variable for
// the tests.
var forsakenAfter = 5 * time.Minute

// join gives the pull or build of r that is under way, or starts it. Who has joined must leave.
func (s *Store) join(r reference, by Asker, credentials bool) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := r.String()
	if f, ok := s.flights[ref]; ok {
		f.forsaken.Stop()
		f.waiting++
		return f, nil
	}
	if s.ctx.Err() != nil {
		return nil, sandbox.Errorf(sandbox.ShuttingDown, nil, "the image store is closed")
	}
	if by.Namespace != "" && s.flying[by.Namespace] >= flightsOfOne {
		e := sandbox.Errorf(sandbox.Capacity, nil, "namespace %s waits for %d images already: try again when one is there", by.Namespace, flightsOfOne)
		e.RetryAfterSecs = 10
		return nil, e
	}
	ctx, cancel := context.WithCancel(s.ctx)
	f := &flight{
		ref: ref, namespace: by.Namespace, done: make(chan struct{}), changed: make(chan struct{}), now: Progress{Ref: ref, Phase: "waiting"},
		waiting: 1, cancel: cancel,
	}
	f.forsaken = time.AfterFunc(forsakenAfter, func() { s.forsake(f) })
	f.forsaken.Stop()
	s.flights[ref] = f
	s.flying[f.namespace]++
	s.work.Go(func() { s.fly(ctx, f, r, credentials) })
	return f, nil
}

func (s *Store) leave(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting--; f.waiting == 0 && s.flights[f.ref] == f {
		f.forsaken.Reset(forsakenAfter)
	}
}

// forsake ends what nobody has waited for; who comes next begins anew.
func (s *Store) forsake(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting > 0 {
		return
	}
	if s.flights[f.ref] == f {
		delete(s.flights, f.ref)
	}
	f.cancel()
}

func (s *Store) fly(ctx context.Context, f *flight, r reference, credentials bool) {
	f.img, f.err = s.obtain(ctx, r, f.namespace, credentials, func(phase string, done, total int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		f.now = Progress{Ref: f.ref, Phase: phase, Done: done, Total: total}
		close(f.changed)
		f.changed = make(chan struct{})
	})
	if f.err != nil && s.ctx.Err() != nil {
		f.err = sandbox.Errorf(sandbox.ShuttingDown, f.err, "the image build was ended")
	}
	f.err = typed(f.err)
	s.mu.Lock()
	f.forsaken.Stop()
	f.cancel()
	if s.flights[f.ref] == f {
		delete(s.flights, f.ref)
	}
	if s.flying[f.namespace]--; s.flying[f.namespace] == 0 {
		delete(s.flying, f.namespace)
	}
	if len(s.flying) == 0 {
		clear(s.expected)
	}
	s.mu.Unlock()
	close(f.done)
}

// obtain pulls or makes an image. What others wrote is read by much code: where that panics, the image is what is wrong.
func (s *Store) obtain(ctx context.Context, r reference, namespace string, credentials bool, step func(string, int64, int64)) (img Image, err error) {
	defer func() {
		if p := recover(); p != nil {
			img, err = Image{}, s.unreadable(r, p)
		}
	}()
	switch r.form {
	case packages:
		done, err := s.builds.take(ctx, namespace)
		if err != nil {
			return Image{}, err
		}
		defer done()
		return s.build(ctx, r, step)
	case registryForm:
		done, err := s.pulls.take(ctx, namespace)
		if err != nil {
			return Image{}, err
		}
		defer done()
		return s.pull(ctx, r, credentials, step)
	}
	return s.local(ctx, r, step)
}

// unreadable is the error of an image that made a reader of it panic.
func (s *Store) unreadable(r reference, panicked any) error {
	s.log.Error("reading an image panicked", "image", r.String(), "panic", panicked, "stack", string(debug.Stack()))
	cause := fmt.Errorf("panic: %v", panicked)
	if r.form == packages {
		return sandbox.Errorf(sandbox.Internal, cause, "the image could not be made; the server's log says why")
	}
	return unavailable(r, cause, "it can't be read")
}

// typed gives err the code Internal where it has none.
func typed(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*sandbox.Error](err); ok {
		return err
	}
	return sandbox.Errorf(sandbox.Internal, err, "the image could not be made; the server's log says why")
}
