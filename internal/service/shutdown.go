package service

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"outpost.run/outpost/sandbox"
)

// begin counts a call that uses machines; done ends it. Errors: ShuttingDown.
func (s *Service) begin() (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, sandbox.Errorf(sandbox.ShuttingDown, nil, "the server is stopping; try again in a moment")
	}
	s.active.Add(1)
	return s.active.Done, nil
}

// beginExec counts an exec of the namespace; the server's end does not wait for one in the background. Errors: ShuttingDown,
// QuotaExceeded.
func (s *Service) beginExec(namespace string, background bool) (done func(), err error) {
	end, err := s.begin()
	if err != nil {
		return nil, err
	}
	if err := s.inuse.takeExec(namespace); err != nil {
		end()
		return nil, err
	}
	if background {
		end()
		return func() { s.inuse.giveExec(namespace) }, nil
	}
	return func() { s.inuse.giveExec(namespace); end() }, nil
}

// Draining says whether new calls are refused.
func (s *Service) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Shutdown refuses new calls, gives those under way the time of drain, then ends them as lost and lets go of the
// runtime. Stateful sandboxes live on, unless stopAll.
func (s *Service) Shutdown(ctx context.Context, drain time.Duration, stopAll bool) error {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.queue.Pause()
	idle := make(chan struct{})
	go func() { s.active.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-time.After(drain):
		s.log.Warn("execs under way are ended as lost", "drain", drain)
	case <-ctx.Done():
	}
	err := s.runtime.Close(ctx, stopAll)
	select {
	case <-idle:
	case <-time.After(5 * time.Second):
		s.log.Error("calls are still under way")
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = errors.Join(err, s.queue.Close(last))
	if stopAll {
		s.noteStopped(ctx)
	}
	return err
}

func (s *Service) noteStopped(ctx context.Context) {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.live))
	s.mu.Unlock()
	for _, l := range all {
		after, err := s.change(ctx, l, "", func(r *sandbox.Sandbox) {
			if r.Mode == sandbox.Stateful && r.Status == sandbox.Running {
				r.Status, r.Health, r.Isolation = sandbox.Stopped, sandbox.Health{Status: sandbox.HealthNone}, notInForce(r.Isolation)
			}
		})
		if err != nil {
			s.log.Error("a stopped sandbox could not be noted", "sandbox_id", after.ID, "error", err)
		}
	}
}
