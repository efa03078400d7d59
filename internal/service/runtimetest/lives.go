package runtimetest

import (
	"context"
	"fmt"
	"sync"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

var modes = []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful}

// waits says a word and then outlives every case.
const waits = "import time; print('began', flush=True); time.sleep(600)"

// marks counts the files and processes that an exec may find of an earlier one, and leaves some.
const marks = `
import os, subprocess
print(sum(os.path.exists(d + '/mark') for d in ('/workspace', '/tmp', '/dev/shm', '/var/tmp')),
      sum(open(f'/proc/{p}/comm').read() == 'sleep\n' for p in os.listdir('/proc') if p.isdigit()))
for d in ('/workspace', '/tmp', '/dev/shm', '/var/tmp'): open(d + '/mark', 'w').write('x')
subprocess.Popen(['sleep', '600'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)`

// lives are cases on what sandboxes keep, and for how long they are there.
var lives = []testCase{
	{"every exec of an ephemeral sandbox starts from the same clean state", func(s *suite) {
		id := s.create(s.spec(sandbox.Ephemeral))
		for range 3 {
			s.says(id, program{code: marks}, "0 0")
		}
	}},
	{"a stateful sandbox keeps files and background processes", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		for n := range 3 {
			s.says(id, program{code: marks}, fmt.Sprint(4*min(n, 1), n))
		}
	}},
	{"execs of one sandbox run at the same time", func(s *suite) {
		for _, mode := range modes {
			id := s.create(s.spec(mode))
			ctx, cancel := context.WithCancel(s.t.Context())
			var ends []func() (outcome, error)
			for range 3 { // each has begun and none has ended
				ends = append(ends, s.begun(ctx, id, program{code: waits}))
			}
			cancel()
			for _, end := range ends {
				if o, err := end(); err != nil || o.Reason != sandbox.Cancelled {
					s.t.Errorf("%s: %+v, %v", mode, o, err)
				}
			}
		}
	}},
	{"sandboxes are made and removed side by side and don't meet", func(s *suite) {
		var all sync.WaitGroup
		for n := range 6 {
			all.Go(func() {
				spec := s.spec(modes[n%2])
				if _, err := s.r.Create(s.t.Context(), spec); err != nil {
					s.t.Error(err)
					return
				}
				o, err := s.try(s.t.Context(), spec.ID, program{code: "import os; open('/tmp/mine', 'x'); print(os.listdir('/tmp'))"})
				if err != nil || o.stdout != "['mine']\n" {
					s.t.Errorf("%s: %+v, %v", spec.Mode, o, err)
				}
				if err := s.r.Delete(s.t.Context(), spec.ID); err != nil {
					s.t.Error(err)
				}
			})
		}
		all.Wait()
	}},
	{"a sandbox's state is read until it is deleted, and deleting again is nothing", func(s *suite) {
		for _, mode := range modes {
			id := s.create(s.spec(mode))
			if state, err := s.r.Inspect(s.t.Context(), id); err != nil || state.Status != sandbox.Running || len(state.Isolation.Effective) == 0 {
				s.t.Errorf("%s: %+v, %v", mode, state, err)
			}
			for range 2 {
				if err := s.r.Delete(s.t.Context(), id); err != nil {
					s.t.Error(err)
				}
			}
			_, err := s.r.Inspect(s.t.Context(), id)
			s.refused("Inspect after Delete", err, sandbox.NotFound)
			_, err = s.try(s.t.Context(), id, program{code: "print(1)"})
			s.refused("Exec after Delete", err, sandbox.NotFound)
		}
	}},
	{"the next runtime finds stateful sandboxes as they were, and ephemeral ones clean", func(s *suite) {
		kept, fresh, unknown := s.spec(sandbox.Stateful), s.spec(sandbox.Ephemeral), s.spec(sandbox.Stateful)
		for _, spec := range []service.SandboxSpec{kept, fresh, unknown} {
			s.says(s.create(spec), program{code: marks}, "0 0")
		}
		gone := s.spec(sandbox.Stateful)
		if err := s.r.Close(s.t.Context(), false); err != nil {
			s.t.Fatal(err)
		}
		s.r = s.Reopen(s.t)
		states := s.sync(kept, fresh, gone)
		for i, want := range []sandbox.Status{sandbox.Running, sandbox.Running, sandbox.LostNow} {
			if states[i].Status != want {
				s.t.Errorf("sandbox %d is %+v, want %s", i, states[i], want)
			}
		}
		if len(states[0].Isolation.Effective) == 0 || len(states[0].Isolation.Missing) > 0 {
			s.t.Errorf("isolation of the adopted machine: %+v", states[0].Isolation)
		}
		if left := s.Left(s.t); len(left) != 1 {
			s.t.Errorf("one sandbox is kept, on the host are %v", left)
		}
		s.says(kept.ID, program{code: marks}, "4 1")
		s.says(fresh.ID, program{code: marks}, "0 0")
		_, err := s.try(s.t.Context(), gone.ID, program{code: "print(1)"})
		s.refused("a lost sandbox", err, sandbox.Lost)
		_, err = s.r.Inspect(s.t.Context(), unknown.ID)
		s.refused("one that nobody knows of", err, sandbox.NotFound)
	}},
	{"closing ends what runs as lost, and nothing begins after it", func(s *suite) {
		var ends []func() (outcome, error)
		spec := s.spec(sandbox.Stateful)
		for _, spec := range []service.SandboxSpec{spec, s.spec(sandbox.Ephemeral)} {
			ends = append(ends, s.begun(s.t.Context(), s.create(spec), program{code: waits}))
		}
		if err := s.r.Close(s.t.Context(), true); err != nil {
			s.t.Error(err)
		}
		for _, end := range ends {
			_, err := end()
			s.refused("an exec under way", err, sandbox.Lost)
		}
		_, err := s.r.Create(s.t.Context(), s.spec(sandbox.Ephemeral))
		s.refused("Create after Close", err, sandbox.Lost)
		_, err = s.try(s.t.Context(), spec.ID, program{code: "print(1)"})
		s.refused("Exec after Close", err, sandbox.Lost)
	}},
}
