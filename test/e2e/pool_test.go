package e2e_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/sandbox"
)

// machines are those of the server that have control groups on the host.
func (s *server) machines(t *testing.T) int {
	t.Helper()
	ids := map[string]bool{}
	for _, thing := range s.held(t) {
		if at := strings.Index(thing, "/m_"); at >= 0 && strings.HasPrefix(thing, "/sys/fs/cgroup/") {
			ids[thing[at+1:]] = true
		}
	}
	return len(ids)
}

func TestAFullPoolIsNoLeakAndGoesWithItsServer(t *testing.T) {
	s := newServer(t, "--pool-max-idle", "32")
	leakCheck(t, s)
	made, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python")})
	if err != nil {
		t.Fatal(err)
	}
	fill := func() {
		t.Helper()
		for end := time.Now().Add(time.Minute); s.machines(t) < 4; { // one may be the sandbox's
			var asks sync.WaitGroup
			for range 4 { // one after another they may always find one, and the pool stays small
				asks.Go(func() {
					if r, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: new("print('x')")}); err != nil || r.ExitCode != 0 {
						t.Error(r.Stderr, err)
					}
				})
			}
			asks.Wait()
			if time.Now().After(end) {
				t.Fatal("the pool never had machines")
			}
		}
	}
	fill()
	if out, err := s.leaks(); err != nil {
		t.Errorf("with a full pool: %v\n%s", err, out)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.leaks(); err == nil {
		t.Errorf("after a crash nothing leaks:\n%s", out)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.leaks(); err != nil {
		t.Errorf("after the next start: %v\n%s", err, out)
	}
	fill()
	if out := clean(t, s.python(t, made.ID, "import os; print(os.listdir('.'))")); out != "['main.py']" {
		t.Error(out)
	}
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	if left := s.held(t); len(left) > 0 {
		t.Errorf("after its end: %v", left)
	}
	if out, err := s.leaks(); err != nil {
		t.Errorf("after its end: %v\n%s", err, out)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
}
