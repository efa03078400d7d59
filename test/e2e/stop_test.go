package e2e_test

import (
	"context"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

// waits tells that it runs by a file, then waits for a file, and says that it ended by itself.
const waits = `
import os, time
open("runs", "w").close()
while not os.path.exists("go"): time.sleep(.005)
print("by itself")`

// running starts an exec in a stateful sandbox and returns when the program runs.
func running(t *testing.T, s *server, id, code string) <-chan execAnswer {
	t.Helper()
	got := make(chan execAnswer, 1)
	go func() {
		r, err := s.Exec(context.Background(), id, sandbox.ExecRequest{Code: &code})
		got <- execAnswer{r, err}
	}()
	clean(t, s.python(t, id, "import os, time\nwhile not os.path.exists('runs'): time.sleep(.005)\nos.remove('runs')"))
	return got
}

type execAnswer struct {
	result sandbox.ExecResult
	err    error
}

func TestSIGTERMLetsExecsEndThatAreQuickEnough(t *testing.T) {
	s := newServer(t)
	made, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Mode: new("stateful")})
	if err != nil {
		t.Fatal(err)
	}
	soon := strings.Replace(waits, `while not os.path.exists("go")`, `for _ in range(100)`, 1)
	got := running(t, s, made.ID, soon)
	if err := s.terminate(); err != nil {
		t.Errorf("the end: %v", err)
	}
	if a := <-got; a.err != nil || strings.TrimSpace(a.result.Stdout) != "by itself" {
		t.Errorf("an exec with time to end answered %+v, %v", a.result, a.err)
	}
	if err := s.start(); err != nil { // also a sandbox in which nothing runs is adopted
		t.Fatal(err)
	}
	if out := clean(t, s.python(t, made.ID, "print('adopted')")); out != "adopted" {
		t.Error(out)
	}
}

func TestSIGTERMEndsExecsThatOutlastTheDrainAsLost(t *testing.T) {
	s := newServer(t, "--drain-secs", "1")
	r := sandbox.CreateRequest{Language: new("python"), Mode: new("stateful")}
	made, err := s.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python")}); err != nil {
		t.Fatal(err)
	}
	clean(t, s.python(t, made.ID, leavesBehind))
	got := running(t, s, made.ID, waits)
	if err := s.terminate(); err != nil {
		t.Errorf("the end: %v", err)
	}
	if a := <-got; sandbox.CodeOf(a.err) != sandbox.Lost {
		t.Errorf("an exec without end answered %+v, %v; want the error lost", a.result, a.err)
	}
	nothingElse(t, s, 1) // the stateful one lives without a server
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if out := clean(t, s.python(t, made.ID, livesOn)); out != "lives on" {
		t.Error(out)
	}
}

func TestStopAllStopsStatefulSandboxesToo(t *testing.T) {
	s := newServer(t, "--stop-all")
	for range 3 {
		made, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Mode: new("stateful")})
		if err != nil {
			t.Fatal(err)
		}
		clean(t, s.python(t, made.ID, leavesBehind))
	}
	if err := s.terminate(); err != nil {
		t.Errorf("the end: %v", err)
	}
	if left := s.held(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
}

func TestDeletingASandboxAnswersItsExecWithTheOutputSoFar(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	got := running(t, shared, made.ID, "print('so far', flush=True)\n"+waits)
	if err := shared.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	a := <-got
	if a.err != nil || a.result.TerminationReason != sandbox.Cancelled || strings.TrimSpace(a.result.Stdout) != "so far" {
		t.Errorf("answered %+v, %v", a.result, a.err)
	}
	if err := shared.Delete(t.Context(), made.ID); sandbox.CodeOf(err) != sandbox.NotFound {
		t.Errorf("a second delete: %v", err)
	}
}

func TestAProgramEndsWhenItsClientGoes(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	ctx, leave := context.WithCancel(t.Context())
	code := "import os\nopen('pid', 'w').write(str(os.getpid()))\n" + waits
	ended := make(chan error, 1)
	go func() {
		_, err := shared.Exec(ctx, made.ID, sandbox.ExecRequest{Code: &code})
		ended <- err
	}()
	clean(t, shared.python(t, made.ID, "import os\nwhile not os.path.exists('runs'): pass"))
	leave()
	if err := <-ended; err == nil {
		t.Error("a call that its client left was answered")
	}
	findings(t, shared.python(t, made.ID, `
import os, time
end = time.monotonic() + 5
while os.path.exists("/proc/" + open("pid").read()):
	if time.monotonic() > end: print("it still runs"); break
`))
}
