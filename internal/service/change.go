package service

import (
	"context"
	"reflect"

	"outpost.run/outpost/sandbox"
)

// change alters a sandbox's record, keeps it and tells of a new status or health; reason is why, where no call asked for
// it. It answers the record as it is then.
func (s *Service) change(ctx context.Context, l *live, reason string, alter func(*sandbox.Sandbox)) (sandbox.Sandbox, error) {
	l.record.Lock() // so that records reach the store in their order
	defer l.record.Unlock()
	s.mu.Lock()
	before := l.state
	after := before
	alter(&after)
	if l.ctx.Err() != nil || reflect.DeepEqual(before, after) {
		s.mu.Unlock()
		return before, nil
	}
	after.UpdatedAt = sandbox.Now()
	l.state = after
	s.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	if before.Health.Status == after.Health.Status && onlyHealth(before, after) {
		return after, nil // the times of checks are not worth a write each
	}
	if err := s.store.PutSandbox(ctx, after, l.moments()); err != nil {
		return after, err
	}
	if before.Status != after.Status {
		e := sandbox.Event{SandboxID: after.ID, Type: string(after.Status), Status: after.Status}
		if after.Status == sandbox.LostNow {
			e.Reason = reason
		}
		s.note(ctx, after.Namespace, e)
	}
	if before.Health.Status != after.Health.Status {
		s.note(ctx, after.Namespace, sandbox.Event{SandboxID: after.ID, Type: sandbox.HealthEvent, Health: &after.Health.Status})
		s.log.Info("a sandbox's health changed", "sandbox_id", after.ID, "from", before.Health.Status, "to", after.Health.Status)
	}
	return after, nil
}

func onlyHealth(a, b sandbox.Sandbox) bool {
	a.Health, a.UpdatedAt = b.Health, b.UpdatedAt
	return reflect.DeepEqual(a, b)
}
