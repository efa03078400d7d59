package enginetest

import (
	"context"
	"slices"
	"strings"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

var ahead = []testCase{
	{"a blank becomes a machine with all that one has", func(s *suite) {
		m := s.startOn(func(spec *engine.MachineSpec) { spec.Limits.MemoryMB, spec.Limits.Pids = 128, 20 })
		if h := m.Handle(); h.SandboxID != s.spec.SandboxID || h.ID != s.spec.ID {
			s.t.Errorf("its handle is %+v", h)
		}
		i := m.Isolation()
		for _, x := range []string{"memory_limit", "pids_limit", "cpu_limit", "disk_limit", "seccomp", "no_egress"} {
			if !slices.Contains(i.Effective, x) {
				s.t.Errorf("%s is not in force: %+v", x, i)
			}
		}
		limits := s.spec.Limits
		o := s.run(m, program{code: "import os; print(os.getcwd(), os.getuid(), flush=True); b = bytearray(200 << 20)", limits: &limits})
		if o.Code != 137 && !o.oom || !strings.HasPrefix(o.stdout, "/workspace 1000") {
			s.t.Errorf("over its memory: %+v", o)
		}
	}},
	{"a machine that can't be made of a blank leaves nothing", func(s *suite) {
		spec := s.onBlank(func(spec *engine.MachineSpec) { spec.Security.User = "nobody-has-this-name" })
		if _, err := s.e.Start(s.t.Context(), spec); sandbox.CodeOf(err) != sandbox.UserNotFound {
			s.t.Errorf("got %v", err)
		}
	}},
	{"a blank that nobody wanted leaves nothing", func(s *suite) {
		spec := s.onBlank()
		for range 2 {
			if err := spec.Blank.Stop(context.WithoutCancel(s.t.Context())); err != nil {
				s.t.Error(err)
			}
		}
	}},
}

// onBlank is a machine's spec, of which the beginning is there.
func (s *suite) onBlank(change ...func(*engine.MachineSpec)) engine.MachineSpec {
	s.t.Helper()
	spec := Spec(s.layers)
	for _, c := range change {
		c(&spec)
	}
	var err error
	if spec.Blank, err = s.e.Blank(s.t.Context(), spec.ID, spec.Limits.DiskMB); sandbox.CodeOf(err) == sandbox.NotSupported {
		s.t.Skip(err)
	} else if err != nil {
		s.t.Fatalf("Blank: %v", err)
	}
	return spec
}

func (s *suite) startOn(change ...func(*engine.MachineSpec)) engine.Machine {
	s.t.Helper()
	spec := s.onBlank(change...)
	return s.start(func(other *engine.MachineSpec) { *other = spec })
}
