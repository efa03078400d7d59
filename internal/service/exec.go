package service

import (
	"context"
	"slices"
	"strings"
	"time"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// Exec runs one program in a sandbox. ctx is the client's: it ends when the client goes away, which kills the program
// unless the request says keep, or says nothing and keep is the default of this call. faults are what reading the
// request gave.
//
// Errors: NotFound, those of policy.Exec and of Runtime.Exec, QuotaExceeded, Capacity (its turn did not come in time),
// SandboxStopped, Conflict (a failed sandbox), Lost, ShuttingDown.
func (s *Service) Exec(ctx context.Context, namespace, id string, r sandbox.ExecRequest, faults sandbox.Faults, keep bool) (sandbox.ExecResult, error) {
	l, record, err := s.find(namespace, id)
	if err != nil {
		return sandbox.ExecResult{}, err
	}
	p, err := s.policy.Exec(r, record.Language, record.ResourceLimits, faults)
	if err != nil {
		return sandbox.ExecResult{}, err
	}
	if err := usable(record); err != nil {
		return sandbox.ExecResult{}, err
	}
	done, err := s.beginExec(namespace)
	if err != nil {
		return sandbox.ExecResult{}, err
	}
	defer done()
	defer l.hold()()
	ctx = whileWanted(ctx, p, keep)
	queued := time.Now()
	if err := l.wait(ctx, time.Duration(p.Limits.TimeoutMS)*time.Millisecond); err != nil {
		return sandbox.ExecResult{}, err
	}
	defer l.next()
	result, err := s.runIn(ctx, id, p, execSpec(p), time.Since(queued))
	if sandbox.CodeOf(err) == sandbox.Lost {
		s.noteLoss(context.WithoutCancel(ctx), id)
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
	if p.OnDisconnect == "keep" || p.OnDisconnect == "" && keep {
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

func (s *Service) runIn(ctx context.Context, id string, p policy.Exec, spec ExecSpec, queue time.Duration) (sandbox.ExecResult, error) {
	stdout, stderr := head{most: p.MaxOutputBytes}, head{most: p.MaxOutputBytes}
	outcome, err := s.runtime.Exec(ctx, id, spec, Streams{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return sandbox.ExecResult{}, err
	}
	outcome.Timings.QueueMS += float64(queue.Microseconds()) / 1000
	outcome.DurationMS += float64(queue.Microseconds()) / 1000
	s.ended(spec.Language, outcome)
	return resultOf(spec.ID, id, outcome, &stdout, &stderr, p.Base64Output), nil
}

func execSpec(p policy.Exec) ExecSpec {
	e := ExecSpec{
		ID: sandbox.NewID(sandbox.ExecPrefix), Language: p.Language, Code: p.Code, Command: p.Command, Deps: p.Deps, Args: p.Args, Env: p.Env,
		Stdin: p.Stdin, User: p.User, WorkingDir: p.WorkingDir, Collect: p.Collect, Limits: p.Limits,
		MaxOutputBytes: int64(p.MaxOutputBytes),
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
