package service

import (
	"context"
	"errors"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// Execute runs one program: in the sandbox that the request names, else in a fresh machine that serves nobody before or
// after and is in no list. ctx, faults and keep are as for Exec.
//
// Errors: those of Exec and of Create.
func (s *Service) Execute(ctx context.Context, by Caller, namespace string, r sandbox.ExecuteRequest, faults sandbox.Faults, keep bool) (sandbox.ExecResult, error) {
	if r.SandboxID != nil {
		policy.ExecutesElsewhere(r, &faults)
		return s.Exec(ctx, namespace, *r.SandboxID, r.Exec(), faults, keep)
	}
	if r.Mode != nil && *r.Mode != string(sandbox.Ephemeral) {
		faults.Add("mode", "must be ephemeral here; create a sandbox to keep its files")
	}
	operator := by.Role == sandbox.Operator
	s.policy.MayName(r.Image, operator, &faults)
	box, p, err := s.plan(r, faults)
	if err != nil {
		return sandbox.ExecResult{}, err
	}
	done, err := s.beginExec(namespace)
	if err != nil {
		return sandbox.ExecResult{}, err
	}
	record := recordOf(namespace, box)
	ctx = whileWanted(ctx, p, keep)
	spec, first := freshSpec(record, box, operator), execSpec(p)
	spec.First = &first
	if _, err := s.runtime.Create(ctx, spec); err != nil {
		done()
		return sandbox.ExecResult{}, err
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
	return s.runIn(ctx, record.ID, p, first, 0)
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
