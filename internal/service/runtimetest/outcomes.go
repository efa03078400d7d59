package runtimetest

import (
	"context"
	"maps"
	"strings"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// outcomes are cases on what a program gets and how it ends, in both modes.
var outcomes = []testCase{
	{"a program gets arguments, input and environment, and its exit code comes back", func(s *suite) {
		for _, mode := range modes {
			spec := s.spec(mode)
			spec.Env = [][2]string{{"A", "sandbox"}, {"B", "sandbox"}}
			o := s.run(s.create(spec), program{
				code: "import os, sys\nprint(sys.argv[1:], sys.stdin.read(), os.environ['A'], os.environ['B'], os.getcwd(), os.getuid())\nprint('e', file=sys.stderr)\nsys.exit(3)",
				args: []string{"ä b", ""}, stdin: "in", env: [][2]string{{"B", "exec"}},
			})
			if o.stdout != "['ä b', ''] in sandbox exec /workspace 1000\n" || o.stderr != "e\n" || o.ExitCode != 3 || o.Reason != sandbox.Exited ||
				o.Signal != "" || o.StdoutBytes != int64(len(o.stdout)) || o.StderrBytes != 2 {
				s.t.Errorf("%s: %+v", mode, o)
			}
			if o.DurationMS <= 0 || o.Timings.RunMS <= 0 || o.Usage.MemoryPeakBytes <= 0 || o.Start == "" {
				s.t.Errorf("%s: not measured: %+v", mode, o)
			}
			if len(o.Isolation.Effective) == 0 || len(o.Isolation.Missing) > 0 {
				s.t.Errorf("%s: isolation %+v", mode, o.Isolation)
			}
		}
	}},
	{"another language, a command and an empty program run", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		s.says(id, program{language: "bash", code: "echo $0 $((1+1)) $1", args: []string{"x"}}, "/workspace/main.sh 2 x")
		s.says(id, program{command: []string{"sh", "-c", "echo $PPID$0", "x"}}, "0x")
		s.says(id, program{code: ""}, "")
	}},
	{"a signal, a missing command and the deadline end as the contract says", func(s *suite) {
		short := Limits
		for _, mode := range modes {
			id := s.create(s.spec(mode))
			short.TimeoutMS = 400 + 4*int(s.run(id, program{code: ""}).DurationMS) // an interpreter's start takes its time under emulation
			for _, tc := range []struct {
				p      program
				code   int
				reason sandbox.TerminationReason
				signal string
				stdout string
			}{
				{program{code: "import os; print('x', flush=True); os.kill(os.getpid(), 15)"}, 143, sandbox.Signaled, "SIGTERM", "x\n"},
				{program{command: []string{"no-such"}}, 127, sandbox.Exited, "", ""},
				{program{command: []string{"/etc/passwd"}}, 126, sandbox.Exited, "", ""},
				{program{code: waits, limits: short}, 124, sandbox.TimedOut, "SIGKILL", "began\n"},
				{program{language: "bash", code: "echo began; setsid sleep 600 & sleep 600", limits: short}, 124, sandbox.TimedOut, "SIGKILL", "began\n"},
			} {
				o := s.run(id, tc.p)
				if o.ExitCode != tc.code || o.Reason != tc.reason || o.Signal != tc.signal || o.stdout != tc.stdout {
					s.t.Errorf("%s %s%v: %+v", mode, tc.p.code, tc.p.command, o)
				}
			}
		}
	}},
	{"memory over the limit ends the exec and says so", func(s *suite) {
		for _, mode := range modes {
			id := s.create(s.spec(mode))
			o := s.run(id, program{code: "print('before', flush=True)\nx = [bytearray(b'x' * (8 << 20)) for _ in range(100)]"})
			if o.ExitCode != 137 || o.Reason != sandbox.OOMKilled || o.Signal != "SIGKILL" || o.stdout != "before\n" {
				s.t.Errorf("%s: %+v", mode, o)
			}
			s.says(id, program{code: "print('lives')"}, "lives")
		}
	}},
	{"output over the limit is counted, not kept", func(s *suite) {
		id := s.create(s.spec(sandbox.Ephemeral))
		o := s.run(id, program{output: 100_000, code: "import os\nfor _ in range(64): os.write(1, b'x' * 65536)\nos.write(2, b'end')"})
		if o.stdout != strings.Repeat("x", 100_000) || o.StdoutBytes != 4<<20 || o.stderr != "end" || o.StderrBytes != 3 || o.ExitCode != 0 {
			s.t.Errorf("exit %d, %d kept, %d counted, stderr %q", o.ExitCode, len(o.stdout), o.StdoutBytes, o.stderr)
		}
	}},
	{"cancelling and deleting end a program with its output so far", func(s *suite) {
		for _, mode := range modes {
			id := s.create(s.spec(mode))
			ctx, cancel := context.WithCancel(s.t.Context())
			cancelled := s.begun(ctx, id, program{code: waits})
			deleted := s.begun(s.t.Context(), id, program{code: waits})
			cancel()
			ends := []func() (outcome, error){cancelled, deleted}
			for i, end := range ends {
				if i == 1 {
					if err := s.r.Delete(s.t.Context(), id); err != nil {
						s.t.Error(err)
					}
				}
				if o, err := end(); err != nil || o.Reason != sandbox.Cancelled || o.stdout != "began\n" || o.StdoutBytes != 6 || o.ExitCode != 137 {
					s.t.Errorf("%s, end %d: %+v, %v", mode, i, o, err)
				}
			}
		}
	}},
	{"files go in as the user's and come out as they were asked for", func(s *suite) {
		for _, mode := range modes {
			o := s.run(s.create(s.spec(mode)), program{
				files:   []service.File{{Path: "a/b.txt", Content: []byte("ü")}, {Path: "/tmp/c", Content: []byte{0xff, 0}}, {Path: "empty", Content: []byte{}}},
				code:    "import os\nprint(os.stat('a/b.txt').st_uid, open('a/b.txt').read())\nfor n in '12': open('out.' + n, 'w').write(n)\nos.symlink('/proc/1/environ', 'l')",
				collect: []string{"a/b.txt", "/tmp/c", "out.*", "empty", "missing", "l"},
			})
			want := map[string]string{"a/b.txt": "ü", "/tmp/c": "\xff\x00", "out.1": "1", "out.2": "2", "empty": ""}
			if o.stdout != "1000 ü\n" || !maps.Equal(o.files(), want) {
				s.t.Errorf("%s: %q, collected %q (%s)", mode, o.stdout, o.files(), o.stderr)
			}
		}
	}},
	{"an exec has a user and a directory of its own", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		where := "import os; print(os.getuid(), os.getgid(), os.getcwd()); open('f', 'w')"
		s.says(id, program{code: where, user: "4321:5", dir: "/srv/deep/er"}, "4321 5 /srv/deep/er")
		s.says(id, program{code: where}, "1000 1000 /workspace")
	}},
	{"an exec's own limits are lower than its sandbox's", func(s *suite) {
		for _, mode := range modes {
			id := s.create(s.spec(mode))
			low := Limits
			low.MemoryMB, low.Pids = 64, 8
			if o := s.run(id, program{limits: low, code: "x = [bytearray(b'x' * (8 << 20)) for _ in range(16)]"}); o.Reason != sandbox.OOMKilled {
				s.t.Errorf("%s: 128 MiB under 64: %+v", mode, o)
			}
			s.says(id, program{limits: low, code: "import os\ntry:\n    for _ in range(20):\n        if os.fork() == 0: __import__('time').sleep(600)\nexcept BlockingIOError: print('full')"}, "full")
			s.says(id, program{code: "x = [bytearray(b'x' * (8 << 20)) for _ in range(16)]; print('fits')"}, "fits")
		}
	}},
}
