package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/sandbox"
)

// leavesBehind writes a file and starts a process that counts on in the background.
const leavesBehind = `
import os, subprocess
open("kept", "w").write("a file")
p = subprocess.Popen(["python3", "-c", "import time\nn=0\nwhile 1:\n n+=1; open('count','w').write(str(n)); time.sleep(.01)"],
	stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
open("pid", "w").write(str(p.pid))
while not os.path.exists("count"): pass
`

// livesOn checks what leavesBehind left.
const livesOn = `
import os, time
assert open("kept").read() == "a file"
os.kill(int(open("pid").read()), 0)
def count():
	while not (text := open("count").read()): pass
	return int(text)
before, end = count(), time.monotonic() + 10
while count() == before: assert time.monotonic() < end, "the background process stands still"
print("lives on")
`

func TestAfterAKillOfTheServerStatefulSandboxesLiveOnAndNothingElseDoes(t *testing.T) {
	sizes := []int{6}
	if !testing.Short() {
		sizes = append(sizes, 100)
	}
	for _, n := range sizes {
		t.Run(fmt.Sprintf("with %d sandboxes", n), func(t *testing.T) {
			s := newServer(t, "--policy-quota-sandboxes", "1000")
			var keep []string
			for i := range n {
				r := sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(64), DiskMB: new(32)}}
				if i%10 < 3 {
					r.Mode = new("stateful")
				}
				r.Language = new("python")
				made, err := s.Create(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if r.Mode != nil {
					clean(t, s.python(t, made.ID, leavesBehind))
					keep = append(keep, made.ID)
				}
			}
			calls := underWay(t, s, keep[0])
			if err := s.kill(); err != nil {
				t.Fatal(err)
			}
			calls()
			if err := s.start(); err != nil {
				t.Fatal(err)
			}
			nothingElse(t, s, len(keep))
			for _, id := range keep {
				if out := clean(t, s.python(t, id, livesOn)); out != "lives on" {
					t.Errorf("%s: %q", id, out)
				}
			}
			if out, err := s.leaks(); err != nil {
				t.Errorf("leaks: %v\n%s", err, out)
			}
		})
	}
}

// underWay starts execs that never end by themselves and returns when they run; the func it gives waits for their calls,
// which must break off.
func underWay(t *testing.T, s *server, id string) (wait func()) {
	t.Helper()
	var calls sync.WaitGroup
	started := "import time; open('started-%d', 'w'); time.sleep(1000)"
	for i := range 3 {
		code := fmt.Sprintf(started, i)
		calls.Go(func() {
			if r, err := s.Exec(context.Background(), id, sandbox.ExecRequest{Code: &code}); err == nil {
				t.Errorf("an exec that a kill of the server cut off answered %+v", r)
			}
		})
		calls.Go(func() {
			_, _ = s.Execute(context.Background(), sandbox.ExecuteRequest{Language: new("python"), Code: &code})
		})
	}
	clean(t, s.python(t, id, "import os, time\nwhile not all(os.path.exists(f'started-{i}') for i in range(3)): time.sleep(.005)"))
	return calls.Wait
}

// nothingElse waits until the host carries as many machines as there should be and no more, for a second at the most.
func nothingElse(t *testing.T, s *server, machines int) {
	t.Helper()
	count := func() (n int) {
		for _, thing := range s.held(t) {
			if strings.HasPrefix(thing, s.dir+"/run/") {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		n := count()
		if n == machines {
			break
		}
		if time.Now().After(end) {
			t.Errorf("%d machines on the host a second after the start, want %d:\n%s", n, machines, strings.Join(s.held(t), "\n"))
			return
		}
	}
	owned := map[string]bool{}
	for _, thing := range s.held(t) {
		if id, ok := strings.CutPrefix(thing, s.dir+"/run/"); ok {
			owned[id] = true
		}
	}
	for _, thing := range s.held(t) {
		if i := strings.LastIndex(thing, "/m_"); i >= 0 && !owned[strings.TrimSuffix(thing[i+1:], ".img")] {
			t.Errorf("%s has no machine", thing)
		}
	}
}

func TestTwentyKillsUnderLoadLeaveNothingWithoutAnOwner(t *testing.T) {
	kills := 20
	if testing.Short() {
		kills = 4
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's
	s := newServer(t)
	made, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Mode: new("stateful")})
	if err != nil {
		t.Fatal(err)
	}
	clean(t, s.python(t, made.ID, leavesBehind))
	for n := range kills {
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for range 4 {
			load.Go(func() { createExecDelete(ctx, s) })
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond) // the point of the kill is to be random
		if err := s.kill(); err != nil {
			t.Fatal(err)
		}
		stop()
		load.Wait()
		if err := s.start(); err != nil {
			t.Fatalf("start after kill %d: %v", n, err)
		}
		all, err := s.All(t.Context(), listStateful)
		if err != nil {
			t.Fatal(err)
		}
		living := 0
		for _, x := range all {
			if x.Status == sandbox.Running {
				living++
			}
		}
		nothingElse(t, s, living)
		if out := clean(t, s.python(t, made.ID, livesOn)); out != "lives on" {
			t.Errorf("after kill %d: %q", n, out)
		}
		if t.Failed() {
			t.Fatalf("after kill %d of seed %d", n, seed)
		}
	}
}
