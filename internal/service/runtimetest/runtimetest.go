// Package runtimetest is the suite that every service.Runtime passes: a promise that is in no case is no promise.
package runtimetest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Subject is the runtime under test.
type Subject struct {
	Open   func(t *testing.T) service.Runtime // a fresh one, with nothing on its host
	Reopen func(t *testing.T) service.Runtime // as after a restart of the daemon: the same installation
	Left   func(t *testing.T) []string        // what of it is on the host
	Python string                             // an image with python3 and bash
	Bash   string                             // an image without python3
}

// Run runs every case, each on a runtime of its own that must be left with nothing on the host.
func Run(t *testing.T, subject Subject) {
	for _, c := range slices.Concat(lives, insides, stops, ports, outcomes, refusals, attacks) {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{t: t, Subject: subject, r: subject.Open(t)}
			defer func() { // before the subject's own cleanups
				if err := s.r.Close(t.Context(), true); err != nil {
					t.Errorf("Close: %v", err)
				}
				if left := subject.Left(t); len(left) > 0 {
					t.Errorf("left on the host: %v", left)
				}
			}()
			s.sync()
			c.run(s)
		})
	}
}

type testCase struct {
	name string // a sentence: it is what a failure prints
	run  func(s *suite)
}

type suite struct {
	Subject
	t *testing.T
	r service.Runtime
}

// sync tells the runtime which sandboxes there are and gives their states.
func (s *suite) sync(known ...service.SandboxSpec) []service.SandboxState {
	s.t.Helper()
	states, err := s.r.Sync(s.t.Context(), known)
	if err != nil || len(states) != len(known) {
		s.t.Fatalf("Sync of %d: %v, %v", len(known), states, err)
	}
	return states
}

// Limits are what the cases give a sandbox unless they say otherwise.
var Limits = sandbox.Limits{MemoryMB: 256, CPUCores: 1, TimeoutMS: 60000, DiskMB: 64, Pids: 64}

// spec is an ordinary sandbox of a mode.
func (s *suite) spec(mode sandbox.Mode) service.SandboxSpec {
	return service.SandboxSpec{
		ID: sandbox.NewID(sandbox.SandboxPrefix), Namespace: "default", Language: "python", Image: s.Python, Mode: mode, Limits: Limits,
		WorkingDir: "/workspace", Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard},
		Network: sandbox.Network{Egress: "none", Allow: []string{}}, CreateWait: time.Minute, Started: true,
	}
}

// create makes a sandbox; the end of the case removes it.
func (s *suite) create(spec service.SandboxSpec) string {
	s.t.Helper()
	state, err := s.r.Create(s.t.Context(), spec)
	if err != nil {
		s.t.Fatalf("Create: %v", err)
	}
	if state.ID != spec.ID || state.Status != sandbox.Running || !strings.HasPrefix(state.ImageDigest, "sha256:") ||
		len(state.Isolation.Effective) == 0 || len(state.Isolation.Missing) > 0 {
		s.t.Errorf("created: %+v", state)
	}
	return spec.ID
}

// program is what a case runs; the zero value of a field means the ordinary thing.
type program struct {
	code     string
	language string
	command  []string
	args     []string
	stdin    string
	env      [][2]string
	user     string
	dir      string
	files    []service.File
	collect  []string
	output   int64
	limits   sandbox.Limits
	printed  func() // called once, when something was printed
}

// outcome is what a program did.
type outcome struct {
	service.ExecOutcome
	stdout, stderr string
}

// files are those that were collected.
func (o outcome) files() map[string]string {
	all := map[string]string{}
	for _, f := range o.Files {
		all[f.Path] = string(f.Content)
	}
	return all
}

// try runs a program and gives the refusal, if it was one.
func (s *suite) try(ctx context.Context, id string, p program) (outcome, error) {
	e := service.ExecSpec{
		ID: sandbox.NewID(sandbox.ExecPrefix), Language: p.language, Command: p.command, Args: p.args, Env: p.env, Stdin: []byte(p.stdin),
		User: p.user, WorkingDir: p.dir, Files: p.files, Collect: p.collect, Limits: p.limits, MaxOutputBytes: 1 << 20,
	}
	if p.command == nil {
		e.Code = &p.code
	}
	if p.output > 0 {
		e.MaxOutputBytes = p.output
	}
	if e.Limits == (sandbox.Limits{}) {
		e.Limits = Limits
	}
	stdout, stderr := &watched{seen: p.printed}, &watched{}
	o, err := s.r.Exec(ctx, id, e, service.Streams{Stdout: stdout, Stderr: stderr})
	return outcome{o, stdout.String(), stderr.String()}, err
}

// run runs a program that must not be refused.
func (s *suite) run(id string, p program) outcome {
	s.t.Helper()
	o, err := s.try(s.t.Context(), id, p)
	if err != nil {
		s.t.Fatalf("%.60q: %v", p.code+strings.Join(p.command, " "), err)
	}
	return o
}

// says runs a program that must exit 0 and print this.
func (s *suite) says(id string, p program, want string) {
	s.t.Helper()
	if o := s.run(id, p); o.ExitCode != 0 || o.Reason != sandbox.Exited || strings.TrimSpace(o.stdout) != want {
		s.t.Errorf("%.80q: exit %d, printed %q, want %q (%s)", p.code, o.ExitCode, o.stdout, want, o.stderr)
	}
}

// refused checks the code of an error.
func (s *suite) refused(what string, err error, want sandbox.Code) {
	s.t.Helper()
	if sandbox.CodeOf(err) != want {
		s.t.Errorf("%s: %v, want %s", what, err, want)
	}
}

// begun starts a program that sleeps after its first words, and returns when it has said them.
func (s *suite) begun(ctx context.Context, id string, p program) func() (outcome, error) {
	s.t.Helper()
	type end struct {
		o   outcome
		err error
	}
	said, ended := make(chan struct{}), make(chan end, 1)
	p.printed = func() { close(said) }
	go func() {
		o, err := s.try(ctx, id, p)
		ended <- end{o, err}
	}()
	select {
	case <-said:
	case e := <-ended:
		s.t.Fatalf("it ended before it spoke: %+v, %v", e.o, e.err)
	}
	return func() (outcome, error) { e := <-ended; return e.o, e.err }
}

// watched calls seen when it is first written to. It may be read when the exec was answered.
type watched struct {
	mu   sync.Mutex
	b    bytes.Buffer
	seen func()
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen != nil {
		w.seen()
		w.seen = nil
	}
	return w.b.Write(b)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}
