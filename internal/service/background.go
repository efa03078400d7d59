package service

import (
	"context"
	"runtime/debug"
	"time"

	"outpost.run/outpost/sandbox"
)

// ExecNote is what is kept of an exec in the background, so that the next server goes on with it.
type ExecNote struct {
	ID, SandboxID, Namespace string
	Language                 string
	StartedAt                sandbox.Time
	Began                    time.Time // on the line of time
	TimeoutMS                int       // 0: no deadline
	MaxOutputBytes           int       // of each stream in the result
	Keep                     int64     // bytes that are kept of each stream
	Base64                   bool
	EndedAt                  *sandbox.Time       // nil: it runs, as far as is known
	Result                   *sandbox.ExecResult // without output
	Error                    *sandbox.ErrorBody  // it came to nothing
}

// inBackground does what no handler waits for.
func (s *Service) inBackground(execID string, do func()) {
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("an exec in the background panicked", "exec_id", execID, "panic", p, "stack", string(debug.Stack()))
			}
		}()
		do()
	}()
}

// noteExec keeps what is known of an exec in the background that begins.
func (s *Service) noteExec(ctx context.Context, e *exec, spec ExecSpec) error {
	e.note = &ExecNote{
		ID: e.ID, SandboxID: e.SandboxID, Namespace: e.namespace, Language: spec.Language, StartedAt: e.started, Began: s.time.now(),
		TimeoutMS: spec.Limits.TimeoutMS, MaxOutputBytes: e.most, Keep: spec.MaxOutputBytes, Base64: e.Base64,
	}
	return s.store.PutExec(ctx, *e.note)
}

// resumeExecs brings back the execs in the background that a former server had, and follows those that run on.
func (s *Service) resumeExecs(ctx context.Context) error {
	notes, err := s.store.Execs(ctx)
	if err != nil {
		return err
	}
	for _, n := range notes {
		l, record, err := s.find(n.Namespace, n.SandboxID)
		if err != nil {
			s.execs.unnote(n.ID)
			continue
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		e := s.execs.restore(n, cancel)
		switch {
		case n.EndedAt != nil:
		case record.Status != sandbox.Running:
			_, _ = s.conclude(e, n.Language, ExecOutcome{}, sandbox.Errorf(sandbox.Lost, nil, "the sandbox's machine ended while the program ran"))
		default:
			s.inBackground(n.ID, func() {
				defer cancel()
				defer s.execs.abandon(e)
				defer l.hold()()
				s.resumeExec(ctx, e, n)
			})
		}
	}
	return s.execs.spool.Sweep()
}

// resumeExec follows an exec that a former server left running, until it ends.
func (s *Service) resumeExec(ctx context.Context, e *exec, n ExecNote) {
	if s.inuse.takeExec(n.Namespace) == nil { // more than its quota may run by now
		defer s.inuse.giveExec(n.Namespace)
	}
	stdout, _, _ := e.Stdout.State()
	stderr, _, _ := e.Stderr.State()
	spec := ExecSpec{ID: n.ID, Language: n.Language, MaxOutputBytes: n.Keep, Background: true, Resume: &[2]int64{stdout, stderr}}
	if n.TimeoutMS > 0 {
		spec.Limits.TimeoutMS = max(1, n.TimeoutMS-int(s.time.now().Sub(n.Began).Milliseconds()))
	}
	outcome, err := s.runtime.Exec(ctx, n.SandboxID, spec, Streams{Stdout: e.Stdout, Stderr: e.Stderr, Started: e.begun})
	ran := float64(s.time.now().Sub(n.Began).Microseconds()) / 1000
	outcome.DurationMS, outcome.Timings.RunMS = ran, ran
	_, _ = s.conclude(e, n.Language, outcome, err)
	if sandbox.CodeOf(err) == sandbox.Lost {
		s.noteLoss(context.WithoutCancel(ctx), n.SandboxID)
	}
}
