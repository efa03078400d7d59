package service

import (
	"context"
	"errors"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// Execute runs one program: in the sandbox that the request names, else in a fresh machine that serves nobody before or
// after and is in no list. ctx, faults, how and the answer are as for Exec.
//
// Errors: those of Exec and of Create.
func (s *Service) Execute(ctx context.Context, by Caller, namespace string, r sandbox.ExecuteRequest, faults sandbox.Faults, how How) (*sandbox.ExecResult, *sandbox.ExecState, error) {
	if r.SandboxID != nil {
		policy.ExecutesElsewhere(r, &faults)
		return s.Exec(ctx, namespace, *r.SandboxID, r.Exec(), faults, how)
	}
	box, p, err := s.checkFresh(by, r, faults)
	if err != nil {
		return nil, nil, err
	}
	done, err := s.beginExec(namespace, false)
	if err != nil {
		return nil, nil, err
	}
	record := s.recordOf(namespace, box)
	ctx, cancel := context.WithCancel(whileWanted(ctx, p, how.Keep))
	defer cancel()
	spec, first := freshSpec(record, box, by.Role == sandbox.Operator), s.execSpec(p)
	spec.First = &first
	e := s.execs.open(namespace, record.ID, true, first, p, cancel)
	defer s.execs.abandon(e)
	if how.Begins != nil {
		how.Begins(&e.Running)
	}
	if _, err := s.runtime.Create(ctx, spec); err != nil {
		defer done()
		_, err := s.conclude(e, first.Language, ExecOutcome{}, err)
		return nil, nil, err
	}
	// The machine is removed beside the answer; until it is gone the exec counts in the quota, which bounds what waits.
	defer func() {
		go func() {
			defer done()
			if err := s.runtime.Delete(context.WithoutCancel(ctx), record.ID); err != nil {
				s.log.Error("a machine could not be removed", "sandbox_id", record.ID, "error", err)
			}
		}()
	}()
	result, err := s.runIn(ctx, e, first, 0)
	return result, nil, err
}

// checkFresh says what a request without sandbox_id amounts to. Errors: those of policy.Create and policy.Exec.
func (s *Service) checkFresh(by Caller, r sandbox.ExecuteRequest, faults sandbox.Faults) (policy.Sandbox, policy.Exec, error) {
	if r.Mode != nil && *r.Mode != string(sandbox.Ephemeral) {
		faults.Add("mode", "must be ephemeral here; create a sandbox to keep its files")
	}
	if r.Background != nil && *r.Background {
		faults.Add("background", "needs a stateful sandbox: create one, and name it by sandbox_id")
	}
	s.policy.MayName(r.Image, by.Role == sandbox.Operator, &faults)
	return s.plan(r, faults)
}

// plan applies the policy to both halves of the request and lists the faults of both at once.
func (s *Service) plan(r sandbox.ExecuteRequest, faults sandbox.Faults) (policy.Sandbox, policy.Exec, error) {
	box, err := s.policy.Create(r.Create(), faults)
	if invalid, is := errors.AsType[*sandbox.Error](err); is && invalid.Code == sandbox.Invalid {
		faults = invalid.Details
	}
	program := r.Exec()
	program.Language = nil // create's
	p, of := s.policy.Exec(program, box.Language, box.Limits, faults)
	if err != nil && sandbox.CodeOf(of) != sandbox.Invalid {
		return box, p, err
	}
	return box, p, of
}
