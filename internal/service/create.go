package service

import (
	"cmp"
	"context"
	"time"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// Create makes a sandbox and answers with the values of its env, for the only time. faults are what reading the request
// gave.
//
// Errors: those of policy.Create and of Runtime.Create, QuotaExceeded, ShuttingDown.
func (s *Service) Create(ctx context.Context, by Caller, namespace string, r sandbox.CreateRequest, faults sandbox.Faults) (sandbox.Sandbox, error) {
	operator := by.Role == sandbox.Operator
	s.policy.MayName(r.Image, operator, &faults)
	p, err := s.policy.Create(r, faults)
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	done, err := s.begin()
	if err != nil {
		return sandbox.Sandbox{}, err
	}
	defer done()
	if err := s.inuse.takeSandbox(namespace); err != nil {
		return sandbox.Sandbox{}, err
	}
	record, err := s.make(ctx, namespace, p, operator)
	if err != nil {
		s.inuse.giveSandbox(namespace)
		return sandbox.Sandbox{}, err
	}
	return record, nil
}

func (s *Service) make(ctx context.Context, namespace string, p policy.Sandbox, operator bool) (sandbox.Sandbox, error) {
	record := s.recordOf(namespace, p)
	state, err := s.runtime.Create(ctx, freshSpec(record, p, operator))
	if err != nil {
		return record, err
	}
	record.Status, record.ImageDigest, record.Isolation = state.Status, state.ImageDigest, state.Isolation
	record.Health, record.Security.User, record.WorkingDir = state.Health, cmp.Or(state.User, p.Security.User), cmp.Or(state.WorkingDir, p.WorkingDir)
	if len(record.Ports) > 0 {
		record.Ports = state.Ports
	}
	moments := s.fresh(record)
	if err := s.store.PutSandbox(context.WithoutCancel(ctx), record, moments); err != nil {
		if gone := s.runtime.Delete(context.WithoutCancel(ctx), record.ID); gone != nil {
			s.log.Error("a sandbox that could not be noted could not be removed", "sandbox_id", record.ID, "error", gone)
		}
		return record, sandbox.Errorf(sandbox.Internal, err, "the sandbox could not be noted")
	}
	l := s.newLive(record, moments)
	s.mu.Lock()
	s.live[record.ID] = l
	s.mu.Unlock()
	s.note(ctx, namespace, sandbox.Event{SandboxID: record.ID, Type: string(sandbox.Running), Status: sandbox.Running})
	return timed(record, l), nil
}

// freshSpec is the spec of a sandbox that is being made.
func freshSpec(r sandbox.Sandbox, p policy.Sandbox, operator bool) SandboxSpec {
	spec := specOf(r, max(p.CreateWait, time.Millisecond)) // 0 means not to wait; a spec's 0, that nothing is said
	spec.Operator, spec.Unsaid, spec.ImageDigest = operator, Unsaid(p.Unsaid), ""
	return spec
}

func (s *Service) recordOf(namespace string, p policy.Sandbox) sandbox.Sandbox {
	now := sandbox.At(s.clock.Wall())
	r := sandbox.Sandbox{
		ID: sandbox.NewID(sandbox.SandboxPrefix), Namespace: namespace, Name: p.Name, Language: p.Language, Image: p.Image,
		Mode: p.Mode, Status: sandbox.Running, ResourceLimits: p.Limits, Env: p.Env, WorkingDir: p.WorkingDir,
		Ports: p.Ports, Security: p.Security, HealthCheck: p.Health, Health: sandbox.Health{Status: sandbox.HealthNone},
		Network: p.Network, MaxConcurrency: p.MaxConcurrency, Labels: p.Labels, TTLSecs: p.TTLSecs, IdleTimeoutSecs: p.IdleSecs,
		CreatedAt: now, UpdatedAt: now,
	}
	if p.Disk != nil {
		r.DiskSizeGB, r.DiskMountPath = &p.Disk.SizeGB, &p.Disk.MountPath
	}
	if r.Env == nil {
		r.Env = [][2]string{}
	}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	return r
}
