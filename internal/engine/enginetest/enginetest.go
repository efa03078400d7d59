// Package enginetest is the suite that every engine passes: a promise that is in no case is no promise.
package enginetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// Subject is the engine under test.
type Subject struct {
	Open   func(t *testing.T) engine.Engine // a fresh one, with nothing on its host
	Reopen func(t *testing.T) engine.Engine // as after a restart of the daemon: the same installation
	Layers []string                         // of the default Python image
	Only   func(name string) bool           // chooses cases; nil: all
	Guests bool                             // machines have kernels of their own
	AtOnce int                              // so many machines are made at once; 0: 6
	Lacks  []string                         // protections that can't be had where the tests run, and that the engine must say are missing
}

type suite struct {
	t      *testing.T
	e      engine.Engine
	layers []string
	lacks  []string
	atOnce int
	guests bool
	reopen func() engine.Engine
	spec   engine.MachineSpec // of the last machine that start made
}

// Run runs every case, each on an engine of its own that must be left with nothing on the host.
func Run(t *testing.T, s Subject) {
	for _, c := range slices.Concat(cases, inside, again, ahead, warmed) {
		if s.Only != nil && !s.Only(c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			e := s.Open(t)
			t.Cleanup(func() { // t.Context() is already cancelled here
				if left, err := e.List(context.WithoutCancel(t.Context())); err != nil || len(left) > 0 {
					t.Errorf("left on the host: %v (%v)", left, err)
				}
			})
			c.run(&suite{t: t, e: e, layers: s.Layers, lacks: s.Lacks, atOnce: cmp.Or(s.AtOnce, 6), guests: s.Guests, reopen: func() engine.Engine { return s.Reopen(t) }})
		})
	}
}

// Limits are what the cases give a machine unless they say otherwise.
var Limits = sandbox.Limits{MemoryMB: 256, CPUCores: 1, TimeoutMS: 20000, DiskMB: 64, Pids: 64}

// Spec is an ordinary machine.
func Spec(layers []string) engine.MachineSpec {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	id := hex.EncodeToString(b)
	return engine.MachineSpec{
		ID: "m_" + id, SandboxID: "sb_" + id, Layers: layers, Limits: Limits, WorkingDir: "/workspace", Programs: []string{"python3"},
		Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard},
	}
}

// start makes a machine that the case's end stops.
func (s *suite) start(change ...func(*engine.MachineSpec)) engine.Machine {
	s.t.Helper()
	spec := Spec(s.layers)
	for _, c := range change {
		c(&spec)
	}
	s.spec = spec
	m, err := s.e.Start(s.t.Context(), spec)
	if err != nil {
		s.t.Fatalf("Start: %v", err)
	}
	s.t.Cleanup(func() {
		if err := m.Stop(context.WithoutCancel(s.t.Context())); err != nil {
			s.t.Errorf("Stop: %v", err)
		}
	})
	return m
}

func stateful(s *engine.MachineSpec) { s.Stateful = true }

// outcome is what a program did.
type outcome struct {
	agent.Exit
	stdout, stderr string
	files          map[string]string
	oom, warm      bool
	usage          sandbox.Usage
	isolation      sandbox.Isolation
	took           time.Duration
}

// program is what a case runs; the zero value of a field means the ordinary thing.
type program struct {
	code     string
	command  []string
	args     []string
	stdin    string
	user     string
	env      [][2]string
	files    []agent.File
	collect  []string
	output   int64
	limits   *sandbox.Limits
	warm     *agent.Warm // see engine.ExecSpec
	killWhen string      // the host kills it when this has been printed
}

var execs struct {
	sync.Mutex
	n int
}

func execID() string {
	execs.Lock()
	defer execs.Unlock()
	execs.n++
	return fmt.Sprintf("exec_%012x", execs.n)
}

// try runs a program and gives the refusal, if it was one.
func (s *suite) try(m engine.Machine, p program) (outcome, error) {
	user, l := p.user, Limits
	if p.limits != nil {
		l = *p.limits
	}
	if user == "" {
		user = "sandbox"
	}
	x, err := m.Park(s.t.Context(), engine.ExecSpec{ID: execID(), User: user, Limits: l, Warm: p.warm})
	if err != nil {
		return outcome{}, err
	}
	defer x.Close()
	run := agent.Run{Interpreter: []string{"python3"}, FileName: "main.py", Argv: p.command, Args: p.args, Env: p.env, Dir: "/workspace", MaxOutput: 1 << 20, Collect: p.collect}
	if p.command == nil {
		run.Code = &p.code
	}
	if p.output > 0 {
		run.MaxOutput = p.output
	}
	o := outcome{files: map[string]string{}, isolation: x.Isolation(), warm: x.Warm()}
	var stdout, stderr watched
	if p.killWhen != "" {
		stdout.word, stdout.seen = p.killWhen, func() { _ = x.Kill() }
	}
	var began time.Time
	exit, files, err := x.Run(run, agent.Feed{
		Files: p.files, Stdin: strings.NewReader(p.stdin), Stdout: &stdout, Stderr: &stderr,
		Started: func() { began = time.Now() }, Exited: func(agent.Exit) { o.took = time.Since(began) },
	})
	if err != nil {
		return o, err
	}
	o.Exit, o.stdout, o.stderr = exit, stdout.String(), stderr.String()
	for _, f := range files {
		o.files[f.Path] = string(f.Content)
	}
	o.usage, o.oom = x.Usage()
	return o, nil
}

// watched calls seen once when word has been written.
type watched struct {
	bytes.Buffer
	word string
	seen func()
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if w.seen != nil && strings.Contains(w.String(), w.word) {
		w.seen()
		w.seen = nil
	}
	return n, err
}

// run runs a program that must not be refused.
func (s *suite) run(m engine.Machine, p program) outcome {
	s.t.Helper()
	o, err := s.try(m, p)
	if err != nil {
		s.t.Fatalf("%.60q: %v", p.code+strings.Join(p.command, " "), err)
	}
	return o
}

// says runs code that must exit 0 and print this.
func (s *suite) says(m engine.Machine, code, want string) {
	s.t.Helper()
	if o := s.run(m, program{code: code}); o.Code != 0 || strings.TrimSpace(o.stdout) != want {
		s.t.Errorf("%.80q: exit %d, printed %q, want %q (%s)", code, o.Code, o.stdout, want, o.stderr)
	}
}

// Leave lets a program of a machine write a file, and Finds wants it there.
func Leave(t *testing.T, m engine.Machine, text string) {
	t.Helper()
	(&suite{t: t}).says(m, fmt.Sprintf("open('left', 'w').write(%q); print('ok')", text), "ok")
}

// Finds fails the test unless Leave's file is there.
func Finds(t *testing.T, m engine.Machine, text string) {
	t.Helper()
	(&suite{t: t}).says(m, "print(open('left').read())", text)
}
