package enginetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

type testCase struct {
	name string // a sentence: it is what a failure prints
	run  func(s *suite)
}

var cases = []testCase{
	{"a program prints, reads its input and exits with its code", func(s *suite) {
		m := s.start(stateful)
		o := s.run(m, program{code: "import sys; print(sys.stdin.read().upper() + sys.argv[1]); print('e', file=sys.stderr); sys.exit(3)", stdin: "in", args: []string{"a b"}})
		if o.Code != 3 || o.stdout != "INa b\n" || o.stderr != "e\n" || o.Signal != 0 {
			s.t.Errorf("got %+v", o)
		}
		s.says(m, "import os; print(os.getcwd(), os.getuid(), sorted(os.listdir('.')))", "/workspace 1000 ['main.py']")
		if o := s.run(m, program{code: "import os; print(os.environ['K'])", env: [][2]string{{"K", "v="}}}); o.stdout != "v=\n" {
			s.t.Errorf("environment: %+v", o)
		}
	}},
	{"a signal ends a program and is named", func(s *suite) {
		o := s.run(s.start(), program{code: "import os; print('x', flush=True); os.kill(os.getpid(), 11)"})
		if o.Code != 139 || o.Signal != int(unix.SIGSEGV) || o.stdout != "x\n" {
			s.t.Errorf("got %+v", o)
		}
	}},
	{"a command that is not there or can't be run ends as in a shell", func(s *suite) {
		m := s.start(stateful)
		for _, tc := range []struct {
			argv []string
			code int
			says string
		}{
			{[]string{"no-such"}, 127, "not found"}, {[]string{"/no/such"}, 127, "No such file"}, {[]string{"/etc/passwd"}, 126, "ermission denied"},
			{[]string{"/tmp"}, 126, ""}, {[]string{"true"}, 0, ""}, {[]string{"sh", "-c", "exit 7"}, 7, ""},
		} {
			if o := s.run(m, program{command: tc.argv}); o.Code != tc.code || !strings.Contains(o.stderr, tc.says) {
				s.t.Errorf("%v: exit %d, %q", tc.argv, o.Code, o.stderr)
			}
		}
		big := s.run(m, program{command: []string{"sh", "-c", "echo ${#1}", "sh", strings.Repeat("x", 100_000)}})
		if big.stdout != "100000\n" {
			s.t.Errorf("an argument of 100 kB: %+v", big)
		}
		if o := s.run(m, program{command: []string{"true", strings.Repeat("x", 300_000)}}); o.Code != 126 || !strings.Contains(o.stderr, "too long") {
			s.t.Errorf("an argument of 300 kB: exit %d, %q", o.Code, o.stderr)
		}
	}},
	{"everything asked for is in force in every preset, and read from the kernel", func(s *suite) {
		for _, p := range []sandbox.Preset{sandbox.Development, sandbox.Standard, sandbox.Maximum} {
			user := map[sandbox.Preset]string{sandbox.Development: "root", sandbox.Standard: "sandbox", sandbox.Maximum: "65534"}[p]
			m := s.start(func(x *engine.MachineSpec) { x.Security.Preset, x.Security.User = p, user })
			if i := m.Isolation(); !slices.Equal(i.Missing, s.lacks) || len(i.Effective)+len(i.Missing) != len(i.Requested) || len(i.Effective) < 15 {
				s.t.Errorf("%s: %+v", p, i)
			}
			o := s.run(m, program{user: user, code: "import os; print(os.getuid(), os.access('/usr', os.W_OK), open('x', 'w').write('w'), open('/tmp/x', 'w').write('w'))"})
			want := map[sandbox.Preset]string{sandbox.Development: "0 True 1 1\n", sandbox.Standard: "1000 False 1 1\n", sandbox.Maximum: "65534 False 1 1\n"}[p]
			if o.stdout != want {
				s.t.Errorf("%s: printed %q, want %q (%s)", p, o.stdout, want, o.stderr)
			}
		}
	}},
	{"without a filter seccomp is not claimed", func(s *suite) {
		i := s.start(func(x *engine.MachineSpec) { x.Security.SeccompEnabled = false }).Isolation()
		if slices.Contains(i.Requested, "seccomp") || slices.Contains(i.Effective, "seccomp") || !slices.Equal(i.Missing, s.lacks) {
			s.t.Errorf("%+v", i)
		}
	}},
	{"memory over the limit kills the whole exec and nothing else", func(s *suite) {
		m := s.start(stateful)
		o := s.run(m, program{code: "import os\nprint('before', flush=True)\nif os.fork() == 0:\n    x = [bytearray(b'x' * (8 << 20)) for _ in range(100)]\nelse:\n    import time; time.sleep(60)"})
		if !o.oom || o.stdout != "before\n" || o.Code == 0 {
			s.t.Errorf("got %+v", o)
		}
		s.says(m, "print('lives')", "lives")
	}},
	{"/dev/shm counts as memory", func(s *suite) {
		o := s.run(s.start(), program{code: "f = open('/dev/shm/x', 'wb')\nfor _ in range(100): f.write(b'x' * (1 << 20))\nf.flush()\nx = [bytearray(b'x' * (8 << 20)) for _ in range(22)]\nprint('held')"})
		if !o.oom {
			s.t.Errorf("100 MiB in /dev/shm and 176 MiB more under 256 MiB: %+v", o)
		}
	}},
	{"an exec's own limit is lower than its machine's", func(s *suite) {
		m := s.start(stateful)
		low := Limits
		low.MemoryMB = 64
		alloc := "x = bytearray(b'x' * (100 << 20)); print('held')"
		if o := s.run(m, program{code: alloc, limits: &low}); !o.oom {
			s.t.Errorf("100 MiB under 64 MiB: %+v", o)
		}
		s.says(m, alloc, "held")
	}},
	{"a fork bomb ends at the process limit", func(s *suite) {
		m := s.start(stateful)
		o := s.run(m, program{code: "import os, time\nn = 0\ntry:\n    while True:\n        if os.fork() == 0: time.sleep(30); os._exit(0)\n        n += 1\nexcept BlockingIOError:\n    print(n)\nos.kill(-1, 9)"})
		if n, err := strconv.Atoi(strings.TrimSpace(o.stdout)); err != nil || n < 32 || n >= Limits.Pids {
			s.t.Errorf("forks before the refusal: %q, limit %d (%s)", o.stdout, Limits.Pids, o.stderr)
		}
		s.says(m, "print('lives')", "lives")
	}},
	{"the disk has the size that was asked for, to 1 %, and the machine lives on", func(s *suite) {
		m := s.start(stateful)
		o := s.run(m, program{code: "n = 0\nf = open('big', 'wb', buffering=0)\ntry:\n    while True: n += f.write(b'x' * 65536)\nexcept OSError as e: print(n, e.errno)"})
		f := strings.Fields(o.stdout)
		if len(f) != 2 {
			s.t.Fatalf("got %+v", o)
		}
		n, _ := strconv.Atoi(f[0])
		want := Limits.DiskMB << 20
		if n < want*99/100 || n > want*101/100 || f[1] != "28" {
			s.t.Errorf("wrote %d of %d bytes, errno %s", n, want, f[1])
		}
		s.says(m, "import os; os.remove('big'); open('again', 'w').write('x'); print('lives')", "lives")
	}},
	{"the processor limit is a bandwidth", func(s *suite) {
		half := Limits
		half.CPUCores = 0.5
		busy := "import time\nw, c = time.monotonic(), time.process_time()\nwhile time.monotonic() - w < 1.5: pass\nprint((time.process_time() - c) / (time.monotonic() - w))"
		o := s.run(s.start(func(x *engine.MachineSpec) { x.Limits = half }), program{code: busy, limits: &half})
		if share, err := strconv.ParseFloat(strings.TrimSpace(o.stdout), 64); err != nil || share > 0.65 {
			s.t.Errorf("half a core used %q of one", o.stdout)
		}
	}},
	{"usage is what the kernel counted for the exec", func(s *suite) {
		o := s.run(s.start(), program{code: `
import os, time
r, w = os.pipe()
for _ in range(5):
    if os.fork() == 0: os.close(w); os.read(r, 1); os._exit(0)
x = bytearray(b'x' * (48 << 20))
while time.process_time() < .3: pass
os.close(w)
for _ in range(5): os.wait()`})
		if o.Code != 0 || o.usage.CPUMS < 300 || o.usage.CPUMS > 20_000 || o.usage.MemoryPeakBytes < 48<<20 || o.usage.MemoryPeakBytes > int64(Limits.MemoryMB)<<20 {
			s.t.Errorf("0.3 s of processor and 48 MiB: exit %d, %+v (%s)", o.Code, o.usage, o.stderr)
		}
		var major, minor int
		_, _ = fmt.Sscanf(s.e.Probe(s.t.Context()).Kernel, "%d.%d", &major, &minor)
		peak := o.usage.PidsPeak
		if peak != nil && (*peak < 6 || *peak > 8) || peak == nil && (major > 6 || major == 6 && minor >= 6) {
			s.t.Errorf("6 processes under Linux %d.%d: pids_peak %s", major, minor, show(peak))
		}
	}},
	{"a machine sees as many processors as it was given", func(s *suite) {
		s.says(s.start(), "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))", "1 1")
	}},
	{"killing ends every process of the exec, whatever it did to escape", func(s *suite) {
		m := s.start(stateful)
		o := s.run(m, program{killWhen: "ready", code: `
import os, time, signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for n in range(1, 65):
            try: signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError): pass
        open('child', 'w').write(str(os.getpid()))
        while True: time.sleep(.01)
while not os.path.exists('child') or not open('child').read(): time.sleep(.01)
print('ready', flush=True)
time.sleep(60)`})
		if o.Signal != int(unix.SIGKILL) {
			s.t.Errorf("got %+v", o)
		}
		s.says(m, "import time, os\np, w = '/proc/' + open('child').read(), time.monotonic()\nwhile os.path.exists(p) and time.monotonic() < w + 5: time.sleep(.01)\nprint(os.path.exists(p))", "False")
	}},
	{"a stateful machine keeps files and background processes between execs", func(s *suite) {
		m := s.start(stateful)
		s.says(m, "import subprocess\nopen('kept', 'w').write('x')\nprint(subprocess.Popen(['sleep', '300']).pid > 0)", "True")
		s.says(m, "import os\nprint(open('kept').read(), sum(open(f'/proc/{p}/comm').read() == 'sleep\\n' for p in os.listdir('/proc') if p.isdigit()))", "x 1")
	}},
	{"a clean machine has nothing but its own first process", func(s *suite) {
		s.says(s.start(), "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()) == [1, os.getpid()], sorted(int(f) for f in os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))", "True [0, 1, 2] 4")
	}},
	{"output over the limit is counted and dropped, and never blocks the program", func(s *suite) {
		o := s.run(s.start(), program{output: 1000, code: "import os\nfor _ in range(512): os.write(1, b'x' * 65536)\nos.write(2, b'end')"})
		if o.Code != 0 || len(o.stdout) != 1000 || o.StdoutBytes != 32<<20 || o.stderr != "end" {
			s.t.Errorf("exit %d, %d bytes kept, %d counted, stderr %q", o.Code, len(o.stdout), o.StdoutBytes, o.stderr)
		}
	}},
	{"large input reaches the program, and input that nobody reads doesn't hold it up", func(s *suite) {
		m, in := s.start(stateful), strings.Repeat("0123456789abcdef", 1<<18)
		if o := s.run(m, program{stdin: in, code: "import sys; print(len(sys.stdin.buffer.read()))"}); o.stdout != "4194304\n" {
			s.t.Errorf("got %+v", o)
		}
		if o := s.run(m, program{stdin: in, code: "print('unread')"}); o.stdout != "unread\n" {
			s.t.Errorf("got %+v", o)
		}
	}},
	{"files go in as the user's and come out again, and never lead outside", func(s *suite) {
		m := s.start(stateful)
		o := s.run(m, program{
			files: []agent.File{{Path: "a/b.txt", Content: []byte("ü")}, {Path: "/tmp/c", Content: []byte{0xff, 0}}},
			code: `import os
print(os.stat('a/b.txt').st_uid, open('a/b.txt').read())
os.symlink('/proc/1/environ', 'l1'); os.symlink('../../../../../../etc/shadow', 'l2'); os.mkfifo('f'); open('out.1', 'w').write('1'); open('out.2', 'w').write('2')`,
			collect: []string{"a/b.txt", "/tmp/c", "out.*", "l1", "l2", "f", "missing", "/proc/version", "/dev/zero"}})
		if o.stdout != "1000 ü\n" {
			s.t.Errorf("inside: %q %s", o.stdout, o.stderr)
		}
		want := map[string]string{"a/b.txt": "ü", "/tmp/c": "\xff\x00", "out.1": "1", "out.2": "2"}
		if fmt.Sprint(o.files) != fmt.Sprint(want) {
			s.t.Errorf("collected %q, want %q", o.files, want)
		}
	}},
	{"collecting more than 8 MiB is refused", func(s *suite) {
		_, err := s.try(s.start(), program{code: "open('big', 'wb').write(b'x' * (9 << 20))", collect: []string{"big"}})
		if sandbox.CodeOf(err) != sandbox.CollectTooLarge {
			s.t.Errorf("got %v", err)
		}
	}},
	{"users are those of the image, or numbers", func(s *suite) {
		m := s.start(stateful)
		for user, want := range map[string]string{"nobody": "65534 65534\n", "4321": "4321 4321\n", "4321:5": "4321 5\n", "root": "0 0\n"} {
			if o := s.run(m, program{user: user, code: "import os; print(os.getuid(), os.getgid())"}); o.stdout != want {
				s.t.Errorf("%s: %q (%s)", user, o.stdout, o.stderr)
			}
		}
		if _, err := s.try(m, program{user: "no-such-user"}); sandbox.CodeOf(err) != sandbox.UserNotFound {
			s.t.Errorf("an unknown user: %v", err)
		}
	}},
	{"what can't be had is refused at the start, and leaves nothing", func(s *suite) {
		for name, tc := range map[string]struct {
			change func(*engine.MachineSpec)
			want   sandbox.Code
		}{
			"user":      {func(x *engine.MachineSpec) { x.Security.User = "no-such-user" }, sandbox.UserNotFound},
			"language":  {func(x *engine.MachineSpec) { x.Programs = []string{"python3", "no-such-interpreter"} }, sandbox.LanguageRuntimeMissing},
			"directory": {func(x *engine.MachineSpec) { x.WorkingDir = "/etc/passwd/below" }, sandbox.Invalid},
		} {
			spec := Spec(s.layers)
			tc.change(&spec)
			if _, err := s.e.Start(s.t.Context(), spec); sandbox.CodeOf(err) != tc.want {
				s.t.Errorf("%s: %v", name, err)
			}
		}
	}},
	{"a stateful machine is found again by the next daemon, with its processes", func(s *suite) {
		m := s.start(stateful)
		s.says(m, "import subprocess; open('kept', 'w').write('x'); subprocess.Popen(['sleep', '300']); print(1)", "1")
		e := s.reopen()
		m2, err := e.Recover(s.t.Context(), m.Handle())
		if err != nil {
			s.t.Fatal(err)
		}
		if i := m2.Isolation(); len(i.Missing) > 0 {
			s.t.Errorf("after recovery: %+v", i)
		}
		s.says(m2, "import os; print(open('kept').read(), sum(open(f'/proc/{p}/comm').read() == 'sleep\\n' for p in os.listdir('/proc') if p.isdigit()))", "x 1")
		if err := m2.Stop(context.WithoutCancel(s.t.Context())); err != nil {
			s.t.Error(err)
		}
		if _, err := e.Recover(s.t.Context(), m.Handle()); sandbox.CodeOf(err) != sandbox.Lost {
			s.t.Errorf("recovering what is gone: %v", err)
		}
	}},
	{"removing is idempotent", func(s *suite) {
		m := s.start()
		for range 3 {
			if err := s.e.Remove(s.t.Context(), m.Handle()); err != nil {
				s.t.Error(err)
			}
		}
	}},
	{"machines run side by side and don't see each other", func(s *suite) {
		var all sync.WaitGroup
		for i := range s.atOnce {
			all.Go(func() {
				m, err := s.e.Start(s.t.Context(), Spec(s.layers))
				if err != nil {
					s.t.Error(err)
					return
				}
				o, err := s.try(m, program{code: fmt.Sprintf("import os, time; open('/tmp/m%d', 'w'); open('/dev/shm/m', 'x'); time.sleep(.3); print(os.listdir('/tmp'))", i)})
				if want := fmt.Sprintf("['m%d']\n", i); err != nil || o.stdout != want {
					s.t.Errorf("machine %d: %q, %v %s", i, o.stdout, err, o.stderr)
				}
				if err := m.Stop(s.t.Context()); err != nil {
					s.t.Error(err)
				}
			})
		}
		all.Wait()
	}},
}

func show(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return strconv.FormatInt(*n, 10)
}
