package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Delete ends a sandbox: what runs in it is killed and answers as cancelled. It goes on when ctx ends.
//
// Errors: NotFound; Internal, something of it is still there and the call can be made again.
func (s *Service) Delete(ctx context.Context, namespace, id string) error {
	l, record, err := s.find(namespace, id)
	if err != nil {
		return err
	}
	done, err := s.begin()
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	if l.ctx.Err() != nil { // another call was faster
		s.mu.Unlock()
		return noSandbox()
	}
	l.end()
	s.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	// The record first: a server that dies in between leaves a machine without an owner, which the next one removes, and
	// no sandbox that has lost its machine.
	err = s.store.DeleteSandbox(ctx, id, record.Mode)
	if err == nil {
		err = s.runtime.Delete(ctx, id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		record.Status, record.UpdatedAt = sandbox.Failed, sandbox.Now()
		s.live[id] = newLive(record)
		if noted := s.store.PutSandbox(ctx, record); noted != nil {
			s.log.Error("a sandbox that could not be removed could not be noted", "sandbox_id", id, "error", noted)
		}
		return err
	}
	delete(s.live, id)
	s.inuse.giveSandbox(namespace)
	return nil
}
