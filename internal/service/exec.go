package service

import (
	"context"
	"slices"
	"strings"
	"time"

	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// How says how an exec is run for its client.
type How struct {
	Keep   bool           // the program goes on when the client goes away, unless the request says kill
	Begins func(*Running) // is told of the record before anything runs; nil: nobody is
}

// Exec runs one program in a sandbox. ctx is the client's: it ends when the client goes away, which kills the program
// unless the request says keep, or says nothing and keep is the default of this call. faults are what reading the
// request gave.
//
// With background it returns when the program has started, and the answer is the exec's state alone; else the result alone.
//
// Errors: NotFound, those of policy.Exec and of Runtime.Exec, NotStateful (background), QuotaExceeded, Capacity (its turn
// did not come in time), SandboxStopped, Conflict (a failed sandbox), Lost, ShuttingDown.
func (s *Service) Exec(ctx context.Context, namespace, id string, r sandbox.ExecRequest, faults sandbox.Faults, how How) (*sandbox.ExecResult, *sandbox.ExecState, error) {
	l, record, err := s.find(namespace, id)
	if err != nil {
		return nil, nil, err
	}
	p, err := s.policy.Exec(r, record.Language, record.ResourceLimits, faults)
	if err != nil {
		return nil, nil, err
	}
	if p.Background && record.Mode != sandbox.Stateful {
		return nil, nil, sandbox.Errorf(sandbox.NotStateful, nil, "only a stateful sandbox can run a program in the background: create one with mode stateful")
	}
	if err := usable(record); err != nil {
		return nil, nil, err
	}
	giveBack := func() {}
	if p.Background {
		if giveBack, err = l.takeBackground(); err != nil {
			return nil, nil, err
		}
	}
	done, err := s.beginExec(namespace, p.Background)
	if err != nil {
		giveBack()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(whileWanted(ctx, p, how.Keep))
	spec := s.execSpec(p)
	e := s.execs.open(namespace, id, false, spec, p, cancel)
	if how.Begins != nil {
		how.Begins(&e.Running)
	}
	letGo := l.hold()
	finish := func() (*sandbox.ExecResult, error) {
		defer done()
		defer giveBack()
		defer letGo()
		defer cancel()
		defer s.execs.abandon(e)
		if p.Background {
			if err := s.noteExec(ctx, e, spec); err != nil {
				s.execs.close(e, sandbox.ExecResult{}, err)
				return nil, err
			}
		}
		return s.inTurn(ctx, l, e, spec)
	}
	if p.Background {
		s.inBackground(func() { _, _ = finish() }) // its record says it
		return s.started(e)
	}
	result, err := finish()
	return result, nil, err
}

// startPatience is how long the answer to an exec in the background waits for its program to start.
const startPatience = 10 * time.Second

// started is the state of an exec in the background whose program has started, or may still wait for what it needs. Errors: those
// for which none did.
func (s *Service) started(e *exec) (*sandbox.ExecResult, *sandbox.ExecState, error) {
	select {
	case <-e.Begun:
	case <-e.Done:
		if e.err != nil {
			s.execs.discard(e)
			return nil, nil, e.err
		}
	case <-time.After(startPatience):
	}
	state := e.state(true)
	return nil, &state, nil
}

// inTurn runs an exec when there is room for it in its sandbox; one in the background takes nobody's.
func (s *Service) inTurn(ctx context.Context, l *live, e *exec, spec ExecSpec) (*sandbox.ExecResult, error) {
	queued := time.Now()
	if !spec.Background {
		_, queue := phase.Begin(ctx, "queue")
		err := l.wait(ctx, time.Duration(spec.Limits.TimeoutMS)*time.Millisecond)
		queue.End(err)
		if err != nil {
			return s.conclude(e, spec.Language, ExecOutcome{}, err)
		}
		defer l.next()
	}
	result, err := s.runIn(ctx, e, spec, time.Since(queued))
	if sandbox.CodeOf(err) == sandbox.Lost {
		s.noteLoss(context.WithoutCancel(ctx), e.SandboxID)
	}
	return result, err
}

func usable(r sandbox.Sandbox) error {
	switch r.Status {
	case sandbox.Running:
		return nil
	case sandbox.Stopped:
		return sandbox.Errorf(sandbox.SandboxStopped, nil, "the sandbox is stopped; start it first")
	case sandbox.LostNow:
		return sandbox.Errorf(sandbox.Lost, nil, "the sandbox's machine is lost; start the sandbox again, its files are kept")
	}
	return sandbox.Errorf(sandbox.Conflict, nil, "the sandbox is %s; delete it", r.Status)
}

// whileWanted is how long the program may live: as long as the client is there, or without end.
func whileWanted(client context.Context, p policy.Exec, keep bool) context.Context {
	if p.Background || p.OnDisconnect == "keep" || p.OnDisconnect == "" && keep {
		return context.WithoutCancel(client)
	}
	return client
}

// wait takes a place in the sandbox, in the order of the calls, for at most the exec's own time.
func (l *live) wait(ctx context.Context, most time.Duration) error {
	if l.turn == nil || l.turn.TryAcquire(1) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	if l.turn.Acquire(ctx, 1) == nil {
		return nil
	}
	if l.ctx.Err() != nil {
		return noSandbox()
	}
	e := sandbox.Errorf(sandbox.Capacity, nil,
		"as many execs of this sandbox as may run at once were under way until the deadline; nothing ran, try again")
	e.RetryAfterSecs = 1
	return e
}

func (l *live) next() {
	if l.turn != nil {
		l.turn.Release(1)
	}
}

// runIn runs an exec and notes how it ended.
func (s *Service) runIn(ctx context.Context, e *exec, spec ExecSpec, queue time.Duration) (*sandbox.ExecResult, error) {
	started, over := (chan<- struct{})(e.begun), func() {}
	if e.note != nil {
		started, over = s.noteStart(e)
	}
	outcome, err := s.runtime.Exec(ctx, e.SandboxID, spec, Streams{Stdin: e.input.reader(), Stdout: e.Stdout, Stderr: e.Stderr, Started: started})
	over()
	outcome.Timings.QueueMS += float64(queue.Microseconds()) / 1000
	outcome.DurationMS += float64(queue.Microseconds()) / 1000
	return s.conclude(e, spec.Language, outcome, err)
}

// conclude notes how an exec ended, and gives its result.
func (s *Service) conclude(e *exec, language string, o ExecOutcome, err error) (*sandbox.ExecResult, error) {
	if e.note != nil && sandbox.CodeOf(err) == sandbox.Lost && s.Draining() {
		e.detached = true // it runs on: its output and record go on with the next server, its input ends
		e.input.end()
		s.ended(language, o, err)
		return nil, err
	}
	s.ended(language, o, err)
	if err != nil {
		var result sandbox.ExecResult
		if sandbox.CodeOf(err) == sandbox.CollectTooLarge { // the program's own end is known
			result = resultOf(e, o)
		}
		s.execs.close(e, result, err)
		return nil, err
	}
	s.execs.close(e, resultOf(e, o), nil)
	result := e.whole()
	return &result, nil
}

func (s *Service) execSpec(p policy.Exec) ExecSpec {
	e := ExecSpec{
		ID: sandbox.NewID(sandbox.ExecPrefix), Language: p.Language, Code: p.Code, Command: p.Command, Deps: p.Deps, Args: p.Args, Env: p.Env,
		Stdin: p.Stdin, User: p.User, WorkingDir: p.WorkingDir, Collect: p.Collect, Limits: p.Limits,
		MaxOutputBytes: max(int64(p.MaxOutputBytes), s.execs.most), Background: p.Background,
	}
	for name, content := range p.Files {
		e.Files = append(e.Files, File{Path: name, Content: content})
	}
	slices.SortFunc(e.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return e
}

// noteLoss keeps that a sandbox lost its machine, if it did.
func (s *Service) noteLoss(ctx context.Context, id string) {
	s.happened(ctx, Event{SandboxID: id, Status: sandbox.LostNow})
}
