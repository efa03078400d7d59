package runtimetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// attacks are cases on programs that try to hold up or bring down what serves their sandbox.
var attacks = []testCase{
	// Opening a file under a lease without waiting fails with EAGAIN, as does a path on which something is being renamed;
	// who tries again without end tries until the kernel breaks the lease, 45 s later.
	{"a lease on a file doesn't hold up who writes or reads it", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		ctx, cancel := context.WithCancel(s.t.Context())
		holder := s.begun(ctx, id, program{code: `
import fcntl, signal, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
f = open('held', 'w')
fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
time.sleep(600)`})
		_, err := s.try(s.t.Context(), id, program{code: "print(1)", files: []service.File{{Path: "held", Content: []byte("x")}}})
		s.refused("a file that is held", err, sandbox.Invalid)
		if o := s.run(id, program{code: "print(1)", collect: []string{"held"}}); o.stdout != "1\n" || len(o.Files) != 0 {
			s.t.Errorf("collecting a file that is held: %+v", o)
		}
		cancel()
		if o, err := holder(); err != nil || o.Reason != sandbox.Cancelled {
			s.t.Errorf("the holder: %+v, %v", o, err)
		}
	}},
	{"many large files at once don't bring the sandbox down", func(s *suite) {
		spec := s.spec(sandbox.Stateful)
		spec.Limits.DiskMB, spec.Limits.MemoryMB, spec.Limits.Pids = 256, 512, 256
		id := s.create(spec)
		big := bytes.Repeat([]byte("0123456789abcdef"), 6<<16) // 6 MiB
		var all sync.WaitGroup
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
			all.Go(func() {
				o, err := s.try(s.t.Context(), id, program{language: "bash", code: "true", limits: spec.Limits,
					files: []service.File{{Path: name, Content: big}}, collect: []string{name}})
				if err != nil || o.ExitCode != 0 || o.files()[name] != string(big) {
					s.t.Errorf("%s: exit %d, %d files, %v", name, o.ExitCode, len(o.Files), err)
				}
			})
		}
		all.Wait()
	}},
	{"hundreds of programs at once don't bring the sandbox down", func(s *suite) {
		spec := s.spec(sandbox.Stateful)
		spec.Limits.MemoryMB, spec.Limits.Pids = 1024, 1024
		id := s.create(spec)
		ctx, cancel := context.WithCancel(s.t.Context())
		var ends []func() (outcome, error)
		for range 300 {
			ends = append(ends, s.begun(ctx, id, program{command: []string{"sh", "-c", "echo x; exec sleep 600"}, limits: spec.Limits}))
		}
		cancel()
		for _, end := range ends {
			if o, err := end(); err != nil || o.Reason != sandbox.Cancelled {
				s.t.Errorf("%+v, %v", o, err)
				break
			}
		}
		s.says(id, program{code: "print('lives')"}, "lives")
	}},
	{"a pattern that matches without end is refused", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		_, err := s.try(s.t.Context(), id, program{code: "import os\nfor n in range(20): os.symlink('.', f'l{n}')", collect: []string{"*/*/*/*/*/*/*/*"}})
		s.refused("20 links to where they are, 8 deep", err, sandbox.CollectTooLarge)
		s.says(id, program{code: "print('lives')", collect: []string{"l*"}}, "lives")
	}},
	// The kernel counts these for the whole host, or for root, unless it is told otherwise.
	{"what one sandbox takes of the kernel's small stocks is not taken from another", func(s *suite) {
		take := func(most int) string {
			return fmt.Sprintf(`
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
def count(f):
    for n in range(%d):
        try:
            if f() < 0: return n
        except OSError: return n
    return n + 1
stocks = [count(libc.inotify_init), count(lambda: os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)),
    count(lambda: libc.syscall(206, 60000, ctypes.byref(ctypes.c_ulong(0))))]
print(*stocks, flush=True)
time.sleep(%d)`, most, most)
		}
		greedy, modest := s.create(s.spec(sandbox.Stateful)), s.create(s.spec(sandbox.Ephemeral))
		ctx, cancel := context.WithCancel(s.t.Context())
		taken := s.begun(ctx, greedy, program{code: take(1500)})
		if o := s.run(modest, program{code: take(1)}); o.stdout != "1 1 0\n" { // no asynchronous I/O at all
			s.t.Errorf("of inotify, ptys, aio are left %s (%s)", o.stdout, o.stderr)
		}
		cancel()
		if o, err := taken(); err != nil || o.Reason != sandbox.Cancelled {
			s.t.Errorf("%+v, %v", o, err)
		} else {
			s.t.Log("one sandbox took", o.stdout)
		}
	}},
}
