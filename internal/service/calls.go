package service

import (
	"context"
	"sync"
	"time"

	"outpost.run/outpost/sandbox"
)

const (
	keepAnswer      = 24 * time.Hour
	keepLargeAnswer = 10 * time.Minute
	largeAnswer     = 256 << 10
)

// calls are those with an idempotency key that are under way in this process.
type calls struct {
	mu      sync.Mutex
	pending map[string]*pendingCall
}

type pendingCall struct {
	body   [32]byte
	done   chan struct{}
	answer Answer
	err    error
}

// Once makes a call with an idempotency key at most once: a second one with the same body joins the first while it is
// under way, and gets its answer afterwards. run gives an answer together with the error that it tells of; keep says of
// an answer whether it is kept; one that is not can be asked for again. ctx is the client's; run goes on without it
// where it wants to.
//
// Errors: that of run, with its answer; without an answer IdempotencyMismatch, Lost (the first call was cut off by a
// restart).
func (s *Service) Once(ctx context.Context, scope, key string, body [32]byte, run func() (Answer, error), keep func(Answer) bool) (Answer, error) {
	id := scope + "\x00" + key
	s.calls.mu.Lock()
	if first := s.calls.pending[id]; first != nil {
		s.calls.mu.Unlock()
		return first.join(ctx, body)
	}
	mine := &pendingCall{body: body, done: make(chan struct{})}
	s.calls.pending[id] = mine
	s.calls.mu.Unlock()
	defer func() {
		s.calls.mu.Lock()
		delete(s.calls.pending, id)
		s.calls.mu.Unlock()
		close(mine.done)
	}()
	now := s.time.now()
	note := Call{Scope: scope, Key: key, Body: body, Run: s.run, Begun: now, Expires: now.Add(keepAnswer)}
	before, fresh, err := s.store.BeginCall(ctx, note)
	switch {
	case err != nil:
		mine.err = sandbox.Errorf(sandbox.Internal, err, "the idempotency key could not be noted")
	case !fresh:
		mine.answer, mine.err = s.again(before, body)
	default:
		mine.err = cutOff() // what those that joined hear when run panics
		mine.answer, mine.err = run()
		s.settle(context.WithoutCancel(ctx), note, mine, keep)
	}
	return mine.answer, mine.err
}

func (p *pendingCall) join(ctx context.Context, body [32]byte) (Answer, error) {
	if p.body != body {
		return Answer{}, mismatch()
	}
	select {
	case <-ctx.Done():
		return Answer{}, sandbox.Errorf(sandbox.Lost, ctx.Err(), "the client went away")
	case <-p.done:
	}
	return p.answer, p.err
}

func (s *Service) again(before Call, body [32]byte) (Answer, error) {
	switch {
	case before.Body != body:
		return Answer{}, mismatch()
	case !before.Done:
		return Answer{}, cutOff()
	}
	return before.Answer, nil
}

func mismatch() error {
	return sandbox.Errorf(sandbox.IdempotencyMismatch, nil, "this Idempotency-Key was used with another body; use a new key for a new call")
}

func cutOff() error {
	return sandbox.Errorf(sandbox.Lost, nil, "the call with this Idempotency-Key was cut off; whether it took effect is not known, use a new key to make it again")
}

func (s *Service) settle(ctx context.Context, note Call, c *pendingCall, keep func(Answer) bool) {
	var err error
	switch {
	case keep(c.answer):
		if note.Done, note.Answer = true, c.answer; len(c.answer.Body) > largeAnswer {
			note.Expires = s.time.now().Add(keepLargeAnswer)
		}
		err = s.store.EndCall(ctx, note)
	case s.Draining() && sandbox.CodeOf(c.err) == sandbox.Lost:
		// It was cut off by the server's end: the note stays, so that a repeat hears of that instead of running again.
	default:
		err = s.store.ForgetCall(ctx, note.Scope, note.Key)
	}
	if err != nil {
		s.log.Error("the answer to a call with an idempotency key could not be noted", "error", err)
	}
}
