package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func exitCodeOf(err error) int {
	if e, is := errors.AsType[*exec.ExitError](err); is {
		return e.ExitCode()
	}
	return 0
}

// heard calls f with what has been written so far.
type heard struct {
	bytes.Buffer
	f func(sofar string)
}

func (w *heard) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	w.f(w.String())
	return n, err
}

func TestOutputIsThereBeforeTheProgramEnds(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	code := "import os, sys, time\nprint('ü first', flush=True)\nwhile not os.path.exists('go'): time.sleep(.01)\nprint('last', file=sys.stderr); sys.exit(3)"
	var stdout, stderr heard
	stdout.f = func(sofar string) { // the program waits for this
		if strings.HasSuffix(sofar, "first\n") {
			clean(t, shared.python(t, made.ID, "open('go', 'w')"))
		}
	}
	stderr.f = func(string) {}
	r, err := shared.ExecLive(t.Context(), made.ID, sandbox.ExecRequest{Code: &code}, client.Live{Stdout: &stdout, Stderr: &stderr})
	if err != nil || r.ExitCode != 3 || r.StdoutBytes != 9 || stdout.String() != "ü first\n" || stderr.String() != "last\n" {
		t.Errorf("%+v, %q, %q, %v", r, stdout.String(), stderr.String(), err)
	}
	bad := "1"
	if _, err := shared.ExecLive(t.Context(), made.ID, sandbox.ExecRequest{Code: &bad, User: new("nobody-here")}, client.Live{}); sandbox.CodeOf(err) != sandbox.UserNotFound {
		t.Errorf("what is refused: %v", err)
	}
}

func TestWhoReadsSlowlyHoldsNoProgramUp(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	code := "import os\nb = bytes(range(256)) * 256\nfor i in range(320): os.write(1, b)\nopen('done', 'w')" // 20 MiB
	stuck, released := make(chan struct{}), make(chan struct{})
	var once bool
	h := sha256.New()
	slow := &heard{f: func(string) {}}
	slow.f = func(string) {
		if !once {
			once = true
			close(stuck)
			<-released
		}
		h.Write(slow.Next(slow.Len()))
	}
	ended := make(chan error, 1)
	go func() {
		_, err := shared.ExecLive(context.Background(), made.ID, sandbox.ExecRequest{Code: &code, OutputEncoding: new("base64")}, client.Live{Stdout: slow})
		ended <- err
	}()
	<-stuck
	clean(t, shared.python(t, made.ID, "import os, time\nwhile not os.path.exists('done'): time.sleep(.01)")) // it ends all the same
	close(released)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	want := sha256.New()
	for range 320 {
		for range 256 {
			for i := range 256 {
				want.Write([]byte{byte(i)})
			}
		}
	}
	if !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
		t.Error("what came late is not what was written")
	}
}

func TestOutputGoesOnWhereAConnectionBroke(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	code := "import time\nfor i in range(40): print(i, flush=True); time.sleep(.01)"
	e, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Code: &code})
	if err != nil || e.Status != sandbox.ExecRunning || !e.Background {
		t.Fatalf("%+v, %v", e, err)
	}
	var got bytes.Buffer
	for finished := false; !finished; { // seven bytes a connection
		o, err := shared.ExecOutput(t.Context(), made.ID, e.ID, sandbox.Stdout, int64(got.Len()), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(&got, o, 7); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		finished = o.Finished && int64(got.Len()) == o.Next
		o.Close()
	}
	var want strings.Builder
	for i := range 40 {
		fmt.Fprintln(&want, i)
	}
	if got.String() != want.String() {
		t.Errorf("%q", got.String())
	}
	state, err := shared.ExecState(t.Context(), made.ID, e.ID)
	if err != nil || state.Result == nil || state.Result.Stdout != want.String() || state.FinishedAt == nil {
		t.Errorf("%+v, %v", state, err)
	}
}

func TestABackgroundProgramOutlivesTheServer(t *testing.T) {
	s := newServer(t)
	leakCheck(t, s)
	made := s.box(t, stateful())
	e, err := s.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "echo up; while :; do date +%s%N > beat; sleep 0.02; done"}})
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.ExecOutput(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(o); string(b) != "up\n" || o.Finished {
		t.Errorf("%q, %v, %v", b, o.Finished, err)
	}
	o.Close()
	beats := "import time\na = open('beat').read()\nfor _ in range(500):\n  time.sleep(.02)\n  if open('beat').read() not in ('', a): print('beats'); break"
	for name, end := range map[string]func() error{"kill -9": s.kill, "SIGTERM": s.terminate} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		if out := clean(t, s.python(t, made.ID, beats)); out != "beats" {
			t.Errorf("after %s it is gone", name)
		}
	}
	all, err := s.Processes(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if strings.HasPrefix(strings.Join(p.Command, " "), "sh -c echo up") {
			if err := s.Signal(t.Context(), made.ID, p.Pid, "SIGKILL"); err != nil {
				t.Error(err)
			}
			return
		}
	}
	t.Errorf("it is no process: %+v", all)
}

func TestAProgramCanBeInterrupted(t *testing.T) {
	leakCheck(t, shared)
	if out := clean(t, shared.once(t, sandbox.ExecuteRequest{}, "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)")); out != "True True" {
		t.Errorf("the server's starter decides what programs heed: %s", out)
	}
}
