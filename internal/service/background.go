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
	Language, Command        string
	StartedAt                sandbox.Time
	Began                    time.Time // on the line of time: the program, or what comes before it
	TimeoutMS                int       // 0: no deadline
	MaxOutputBytes           int       // of each stream in the result
	Keep                     int64     // bytes that are kept of each stream
	Base64                   bool
	EndedAt                  *sandbox.Time       // nil: it runs, as far as is known
	Result                   *sandbox.ExecResult // without output
	Error                    *sandbox.ErrorBody  // it came to nothing
}

// inBackground does what no handler waits for.
func (s *Service) inBackground(do func()) {
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("an exec in the background panicked", "panic", p, "stack", string(debug.Stack()))
			}
		}()
		do()
	}()
}

// noteExec keeps what is known of an exec in the background that begins.
func (s *Service) noteExec(ctx context.Context, e *exec, spec ExecSpec) error {
	e.note = &ExecNote{
		ID: e.ID, SandboxID: e.SandboxID, Namespace: e.namespace, Language: spec.Language, Command: e.command, StartedAt: e.started, Began: s.time.now(),
		TimeoutMS: spec.Limits.TimeoutMS, MaxOutputBytes: e.most, Keep: spec.MaxOutputBytes, Base64: e.Base64,
	}
	return s.store.PutExec(ctx, *e.note)
}

// noteStart gives the channel for the word that the program of an exec in the background has started, from which the next server
// counts its time; over ends that.
func (s *Service) noteStart(e *exec) (started chan<- struct{}, over func()) {
	word, end, done := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-word:
			e.note.Began = s.time.now()
			if err := s.store.PutExec(context.Background(), *e.note); err != nil {
				s.log.Error("the start of an exec in the background could not be noted", "exec_id", e.ID, "error", err)
			}
			e.begun <- struct{}{}
		case <-end:
		}
	}()
	return word, func() {
		close(end)
		<-done
	}
}

// maxInBackground is how many programs may run in the background of a sandbox: its agent keeps what each says for the next server.
const maxInBackground = 32

// takeBackground counts a program in the background of a sandbox, until it is given back. Error: QuotaExceeded.
func (l *live) takeBackground() (giveBack func(), err error) {
	if l.inBackground.Add(1) > maxInBackground {
		l.inBackground.Add(-1)
		return nil, sandbox.Errorf(sandbox.QuotaExceeded, nil, "the sandbox has %d programs in the background already; end some first, or let one of them start others", maxInBackground)
	}
	return func() { l.inBackground.Add(-1) }, nil
}

// resumeExecs brings back the execs in the background that a former server had, and follows those that run on.
func (s *Service) resumeExecs(ctx context.Context) error {
	var follow []func()
	err := s.store.Execs(ctx, func(n ExecNote) error {
		l, record, err := s.find(n.Namespace, n.SandboxID)
		if err != nil {
			s.execs.unnote(n.ID)
			return nil
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		e := s.execs.restore(n, cancel)
		switch {
		case n.EndedAt != nil:
			cancel()
		case record.Status != sandbox.Running:
			cancel()
			_, _ = s.conclude(e, n.Language, ExecOutcome{}, sandbox.Errorf(sandbox.Lost, nil, "the sandbox's machine ended while the program ran"))
		default:
			l.inBackground.Add(1)
			follow = append(follow, func() {
				defer cancel()
				defer s.execs.abandon(e)
				defer l.hold()()
				defer l.inBackground.Add(-1)
				s.resumeExec(ctx, e, n)
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.execs.spool.Sweep("."+sandbox.Stdout, "."+sandbox.Stderr); err != nil {
		s.log.Error("old output could not be removed", "error", err)
	}
	for _, one := range follow {
		s.inBackground(one)
	}
	return nil
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
