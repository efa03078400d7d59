package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Delete ends a sandbox: what runs in it is killed and answers as cancelled. It goes on when ctx ends.
//
// Errors: NotFound; Internal, something of it is still there and the call can be made again.
func (s *Service) Delete(ctx context.Context, namespace, id string) error {
	l, _, err := s.find(namespace, id)
	if err != nil {
		return err
	}
	return s.delete(ctx, l, "")
}

// delete ends a sandbox; reason is why, where no call asked for it.
func (s *Service) delete(ctx context.Context, l *live, reason string) error {
	done, err := s.begin()
	if err != nil {
		return err
	}
	defer done()
	l.record.Lock() // nobody writes the record after it is gone
	s.mu.Lock()
	if l.ctx.Err() != nil { // another call was faster
		s.mu.Unlock()
		l.record.Unlock()
		return noSandbox()
	}
	l.end()
	record := l.state
	s.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	// The record first: a server that dies in between leaves a machine without an owner, which the next one removes, and
	// no sandbox that has lost its machine.
	err = s.store.DeleteSandbox(ctx, record.ID, record.Mode)
	l.record.Unlock()
	if err == nil {
		err = s.runtime.Delete(ctx, record.ID)
	}
	if err != nil {
		s.undeletable(ctx, record, l.moments())
		return err
	}
	s.mu.Lock()
	delete(s.live, record.ID)
	s.mu.Unlock()
	s.execs.forgetOf(record.ID)
	s.inuse.giveSandbox(record.Namespace)
	s.note(ctx, record.Namespace, sandbox.Event{SandboxID: record.ID, Type: sandbox.DeletedEvent, Reason: reason})
	return nil
}

// undeletable keeps a sandbox of which something is left, so that it can be deleted again.
func (s *Service) undeletable(ctx context.Context, record sandbox.Sandbox, m Moments) {
	record.Status, record.UpdatedAt = sandbox.Failed, sandbox.Now()
	s.mu.Lock()
	s.live[record.ID] = s.newLive(record, m)
	s.mu.Unlock()
	if err := s.store.PutSandbox(ctx, record, m); err != nil {
		s.log.Error("a sandbox that could not be removed could not be noted", "sandbox_id", record.ID, "error", err)
	}
	s.note(ctx, record.Namespace, sandbox.Event{SandboxID: record.ID, Type: string(sandbox.Failed), Status: sandbox.Failed})
}
