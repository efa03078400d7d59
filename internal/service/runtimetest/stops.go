package runtimetest

import (
	"context"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// stops are cases on sandboxes that are stopped and started, and on what a runtime tells by itself.
var stops = []testCase{
	{"a stopped sandbox starts on its files, also in the next runtime", func(s *suite) {
		spec := s.spec(sandbox.Stateful)
		id := s.create(spec)
		s.says(id, program{code: marks}, "0 0")
		for range 2 {
			if err := s.r.Stop(s.t.Context(), id); err != nil {
				s.t.Fatal(err)
			}
		}
		_, err := s.try(s.t.Context(), id, program{code: "print(1)"})
		s.refused("Exec while it is stopped", err, sandbox.SandboxStopped)
		for range 2 {
			if state, err := s.r.Start(s.t.Context(), id); err != nil || state.Status != sandbox.Running || len(state.Isolation.Effective) == 0 {
				s.t.Fatalf("Start: %+v, %v", state, err)
			}
		}
		s.says(id, program{code: marks}, "3 0") // /dev/shm is memory
		if err := s.r.Stop(s.t.Context(), id); err != nil {
			s.t.Fatal(err)
		}
		if err := s.r.Close(s.t.Context(), false); err != nil {
			s.t.Fatal(err)
		}
		s.r = s.Reopen(s.t)
		spec.Started = false
		s.sync(spec)
		if _, err := s.r.Start(s.t.Context(), id); err != nil {
			s.t.Fatal(err)
		}
		s.says(id, program{code: marks}, "3 0")
		if err := s.r.Delete(s.t.Context(), id); err != nil {
			s.t.Error(err)
		}
	}},
	{"an ephemeral sandbox can be neither stopped nor started, nor given ports", func(s *suite) {
		id := s.create(s.spec(sandbox.Ephemeral))
		s.refused("Stop", s.r.Stop(s.t.Context(), id), sandbox.NotStateful)
		_, err := s.r.Start(s.t.Context(), id)
		s.refused("Start", err, sandbox.NotStateful)
		s.refused("Stop of none", s.r.Stop(s.t.Context(), "sb_000000000000"), sandbox.NotFound)
	}},
	{"health is told as it changes", func(s *suite) {
		ctx, cancel := context.WithCancel(s.t.Context())
		events, ended := make(chan service.Event), make(chan error, 1)
		go func() { ended <- s.r.Watch(ctx, events) }()
		spec := s.spec(sandbox.Stateful)
		spec.Health = sandbox.HealthCheck{IntervalSecs: 1, TimeoutSecs: 5, Retries: 1, Command: []string{"false"}}
		id := s.create(spec)
		for seen := sandbox.HealthStatus(""); seen != sandbox.Unhealthy; {
			select {
			case e := <-events:
				if e.SandboxID == id && e.Health != nil {
					seen = e.Health.Status
				}
			case <-time.After(time.Minute):
				s.t.Fatalf("health is %q after a minute", seen)
			}
		}
		cancel()
		if err := <-ended; err != nil && sandbox.CodeOf(err) != sandbox.Lost {
			s.t.Errorf("Watch: %v", err)
		}
	}},
	{"the images that are ready can be listed", func(s *suite) {
		all, err := s.r.Images(s.t.Context(), "default", true)
		if err != nil || len(all) == 0 || all[0].Digest == "" || all[0].SizeBytes == 0 {
			s.t.Errorf("Images: %+v, %v", all, err)
		}
	}},
}
