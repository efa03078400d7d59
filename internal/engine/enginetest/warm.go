package enginetest

import (
	"context"
	"strings"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
)

// python is what try runs, before its code is known.
func python() *agent.Warm {
	return &agent.Warm{Interpreter: []string{"python3"}, FileName: "main.py", Dir: "/workspace"}
}

// around is a program that shows all that an interpreter in its place could have left.
const around = "import os, sys; print(sys.argv[0], sorted(os.listdir('.')), sum(p.isdigit() for p in os.listdir('/proc')), sorted(os.listdir('/tmp')), oct(os.lstat(sys.argv[0]).st_mode))"

const aroundSays = "/workspace/main.py ['main.py'] 2 [] 0o100644"

// warm lets an interpreter start ahead, which must work.
func (s *suite) warm(m engine.Machine, w *agent.Warm) {
	s.t.Helper()
	if err := m.Warm(s.t.Context(), *w); err != nil {
		s.t.Fatalf("Warm: %v", err)
	}
}

// finds runs a program in a machine whose first process was warmed; it must find nothing of that.
func (s *suite) finds(m engine.Machine, p program, warm bool) {
	s.t.Helper()
	p.code = around
	o := s.run(m, p)
	if o.warm != warm {
		s.t.Errorf("started warm: %v", o.warm)
	}
	if got := strings.TrimSpace(o.stdout); o.Code != 0 || got != aroundSays {
		s.t.Errorf("printed %q, want %q (%s)", got, aroundSays, o.stderr)
	}
}

// warmed are cases on interpreters that are started before their program is known, and on machines that are nobody's yet.
var warmed = []testCase{
	{"an interpreter that was started ahead runs the program that comes, and one alone", func(s *suite) {
		m := s.start(stateful)
		s.warm(m, python())
		s.finds(m, program{warm: python()}, true)
		s.finds(m, program{warm: python()}, false)
	}},
	{"what comes with the program lies there when it runs, also what is longer than a pipe", func(s *suite) {
		m := s.start()
		s.warm(m, python())
		code := "import sys; from beside import x; print(x, sys.stdin.read(), open('deep/f').read()); open('out', 'w').write('o'); sys.exit(5)\n" + strings.Repeat("# filler\n", 1<<17)
		o := s.run(m, program{warm: python(), code: code, stdin: "in", files: []agent.File{{Path: "beside.py", Content: []byte("x = 1")}, {Path: "deep/f", Content: []byte("f")}}, collect: []string{"out", "main.py"}})
		if !o.warm || o.Code != 5 || o.stdout != "1 in f\n" || o.files["out"] != "o" || o.files["main.py"] != code {
			s.t.Errorf("warm %v, exit %d, %q %q, out %q, main.py of %d bytes", o.warm, o.Code, o.stdout, o.stderr, o.files["out"], len(o.files["main.py"]))
		}
	}},
	{"a program that waits for its interpreter gets it", func(s *suite) {
		m := s.start()
		slow := python()
		slow.Interpreter = []string{"sh", "-c", "sleep .3; exec python3 \"$1\"", "sh"}
		done := make(chan error)
		go func() { done <- m.Warm(s.t.Context(), *slow) }()
		time.Sleep(100 * time.Millisecond) // Warm has begun
		if o := s.run(m, program{warm: slow, code: "print('x')"}); !o.warm || o.stdout != "x\n" {
			s.t.Errorf("warm %v, %q %q", o.warm, o.stdout, o.stderr)
		}
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}},
	{"an interpreter that was started for something else is gone without a trace", func(s *suite) {
		other := func(change func(*agent.Warm)) *agent.Warm {
			w := python()
			change(w)
			return w
		}
		low := Limits
		low.Pids = 32
		for name, tc := range map[string]struct {
			as *agent.Warm
			p  program
		}{
			"for no interpreter":   {python(), program{}},
			"for other words":      {other(func(w *agent.Warm) { w.Interpreter = []string{"python3", "-u"} }), program{warm: python()}},
			"for other variables":  {other(func(w *agent.Warm) { w.Env = [][2]string{{"A", "1"}} }), program{warm: python()}},
			"in another folder":    {other(func(w *agent.Warm) { w.Dir = "/workspace/../dev/shm" }), program{warm: python()}},
			"for another file":     {other(func(w *agent.Warm) { w.FileName = "other.py" }), program{warm: python()}},
			"with other limits":    {python(), program{warm: python(), limits: &low}},
			"for another language": {other(func(w *agent.Warm) { w.Interpreter, w.FileName = []string{"cat"}, "main.sh" }), program{warm: python()}},
		} {
			s.t.Log(name)
			m := s.start()
			s.warm(m, tc.as)
			s.finds(m, tc.p, false)
		}
	}},
	{"an interpreter that was started for another user is gone without a trace", func(s *suite) {
		m := s.start(stateful)
		s.warm(m, python())
		if o := s.run(m, program{warm: python(), user: "root", code: "import os; print(os.getuid(), os.listdir('.'))"}); o.warm || o.stdout != "0 ['main.py']\n" {
			s.t.Errorf("warm %v, %q %q", o.warm, o.stdout, o.stderr)
		}
		s.finds(m, program{warm: python()}, false)
	}},
	{"where an interpreter can't wait the process stays as it was", func(s *suite) {
		for name, w := range map[string]agent.Warm{
			"it is not there":            {Programs: []string{"no-such"}, Interpreter: []string{"no-such"}, FileName: "main.py", Dir: "/workspace"},
			"its file has no place":      {Interpreter: []string{"python3"}, FileName: "main.py", Dir: "/etc"},
			"its folder can't be":        {Interpreter: []string{"python3"}, FileName: "main.py", Dir: "/etc/passwd/x"},
			"its file's place is a link": {Interpreter: []string{"python3"}, FileName: "sh", Dir: "/bin"},
		} {
			s.t.Log(name)
			m := s.start()
			s.warm(m, &w)
			s.finds(m, program{warm: &w}, false)
		}
	}},
	{"an interpreter that ends before it has a program is an error, and the next program starts as if it had not been", func(s *suite) {
		for _, words := range [][]string{{"true"}, {"sh", "-c", "exit 7"}, {"sh", "-c", "kill -9 $$"}, {"no-such-interpreter"}, {"/etc/passwd"}} {
			m := s.start()
			w := python()
			w.Interpreter = words
			if err := m.Warm(s.t.Context(), *w); err == nil {
				s.t.Errorf("%v: no error", words)
			}
			s.finds(m, program{warm: w}, false)
		}
	}},
	{"an interpreter that never asks for its program is given up in time", func(s *suite) {
		m := s.start()
		w := python()
		w.Interpreter = []string{"sh", "-c", "sleep 1000 & wait"}
		ctx, cancel := context.WithTimeout(s.t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := m.Warm(ctx, *w); err == nil {
			s.t.Error("no error")
		}
		s.finds(m, program{warm: w}, false)
	}},
	{"an interpreter is started ahead once, and never after the first program", func(s *suite) {
		m := s.start(stateful)
		s.says(m, "print(1)", "1")
		s.warm(m, python())
		s.finds(m, program{warm: python()}, false)
		m = s.start()
		s.warm(m, python())
		s.warm(m, &agent.Warm{Interpreter: []string{"sh", "-c", "exit 1"}, FileName: "x", Dir: "/tmp"})
		s.finds(m, program{warm: python()}, true)
	}},
	{"a machine can be stopped while its interpreter starts, and while that waits", func(s *suite) {
		for _, words := range [][]string{{"python3"}, {"sh", "-c", "sleep 1000"}} {
			m := s.start()
			w := python()
			w.Interpreter = words
			done := make(chan error)
			go func() { done <- m.Warm(s.t.Context(), *w) }()
			time.Sleep(50 * time.Millisecond)
			if err := m.Stop(s.t.Context()); err != nil {
				s.t.Error(err)
			}
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				s.t.Error("Warm never returned")
			}
			if _, err := m.Park(s.t.Context(), engine.ExecSpec{ID: execID(), User: "sandbox", Limits: Limits, Warm: w}); err == nil {
				s.t.Error("Park after Stop: no error")
			}
		}
	}},
	{"a killed interpreter is a killed program", func(s *suite) {
		m := s.start()
		s.warm(m, python())
		x, err := m.Park(s.t.Context(), engine.ExecSpec{ID: execID(), User: "sandbox", Limits: Limits, Warm: python()})
		if err != nil || !x.Warm() {
			s.t.Fatalf("Park: %v", err)
		}
		defer x.Close()
		if err := x.Kill(); err != nil {
			s.t.Error(err)
		}
		exit, _, err := x.Run(agent.Run{Interpreter: []string{"python3"}, FileName: "main.py", Dir: "/workspace", Code: new("print(1)"), MaxOutput: 100},
			agent.Feed{Stdout: &watched{}, Stderr: &watched{}, Started: func() {}, Exited: func(agent.Exit) {}})
		if err == nil && exit.Signal != 9 {
			s.t.Errorf("it ended as %+v", exit)
		}
	}},
	{"a machine that is nobody's is given to a sandbox, also for who looks at the host", func(s *suite) {
		m := s.start(func(x *engine.MachineSpec) { x.SandboxID = engine.Pooled })
		isOf := func(want string) {
			s.t.Helper()
			if h := m.Handle(); h.SandboxID != want {
				s.t.Errorf("the handle says %q, want %q", h.SandboxID, want)
			}
			all, err := s.e.List(s.t.Context())
			if err != nil || len(all) != 1 || all[0] != m.Handle() {
				s.t.Errorf("List says %v, %v, want %v", all, err, m.Handle())
			}
		}
		isOf(engine.Pooled)
		s.warm(m, python())
		if err := m.Lease("sb_0123456789ab"); err != nil {
			s.t.Fatal(err)
		}
		isOf("sb_0123456789ab")
		s.finds(m, program{warm: python()}, true)
	}},
}
