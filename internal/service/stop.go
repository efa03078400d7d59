package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Stop ends a stateful sandbox's machine and keeps its files; what runs in it answers as cancelled. Stopping what is
// stopped changes nothing. It goes on when ctx ends.
//
// Errors: NotFound, NotStateful, Conflict (a failed sandbox), ShuttingDown.
func (s *Service) Stop(ctx context.Context, namespace, id string) (sandbox.Sandbox, error) {
	return s.turn(ctx, namespace, id, sandbox.Stopped, func(ctx context.Context) (SandboxState, error) {
		return SandboxState{Status: sandbox.Stopped, Health: sandbox.Health{Status: sandbox.HealthNone}}, s.runtime.Stop(ctx, id)
	})
}

// StartAgain makes a machine on the files of a stateful sandbox that was stopped or lost. Starting what runs changes
// nothing. It goes on when ctx ends.
//
// Errors: NotFound, NotStateful, Conflict (a failed sandbox), Lost (its files are gone), Capacity, ShuttingDown.
func (s *Service) StartAgain(ctx context.Context, namespace, id string) (sandbox.Sandbox, error) {
	return s.turn(ctx, namespace, id, sandbox.Running, func(ctx context.Context) (SandboxState, error) {
		return s.runtime.Start(ctx, id)
	})
}

func (s *Service) turn(ctx context.Context, namespace, id string, to sandbox.Status, do func(context.Context) (SandboxState, error)) (sandbox.Sandbox, error) {
	l, record, err := s.find(namespace, id)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	done, err := s.begin()
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer done()
	switch {
	case record.Mode != sandbox.Stateful:
		return sandbox.Sandbox{}, sandbox.Errorf(sandbox.NotStateful, nil, "only a stateful sandbox can do that: create one with mode stateful")
	case record.Status == sandbox.Failed:
		return sandbox.Sandbox{}, usable(record)
	}
	l.turning.Lock()
	defer l.turning.Unlock()
	l.touch()
	ctx = context.WithoutCancel(ctx)
	state, err := do(ctx)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	after, err := s.change(ctx, l, "", func(r *sandbox.Sandbox) {
		r.Status, r.Health = to, state.Health
		r.Isolation = notInForce(r.Isolation)
		if to == sandbox.Running {
			r.Isolation = state.Isolation
		}
	})
	if err == nil && l.ctx.Err() != nil {
		err = noSandbox()
	}
	return s.shown(l, after), err
}

// notInForce is the isolation of a sandbox that has no machine: there is nothing that anything could be in force for.
func notInForce(i sandbox.Isolation) sandbox.Isolation {
	return sandbox.Isolation{Engine: i.Engine, Requested: i.Requested, Effective: []string{}, Missing: []string{}}
}
