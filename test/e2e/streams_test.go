package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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

func TestABackgroundProgramItsOutputAndItsResultOutliveTheServer(t *testing.T) {
	s := newServer(t, "--listen", lastingAddress(t)) // where the next one is found
	leakCheck(t, s)
	made := s.box(t, stateful())
	e, err := s.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "n=0; until [ -e stop ]; do n=$((n+1)); echo $n; sleep 0.01; done; echo end >&2; exit 6"}})
	if err != nil {
		t.Fatal(err)
	}
	cancelled, err := s.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sleep", "4006"}})
	if err != nil {
		t.Fatal(err)
	}
	grows := func() {
		t.Helper()
		for before, end := int64(-1), time.Now().Add(30*time.Second); ; {
			o, err := s.ExecOutput(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, 0)
			if err != nil || o.Finished || time.Now().After(end) {
				t.Fatalf("its output stands still: %+v, %v", o, err)
			}
			o.Close()
			if before >= 0 && o.Next > before {
				return
			}
			before = o.Next
		}
	}
	restarted := func(end func() error) {
		t.Helper()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
	var followed bytes.Buffer
	follows, follower := make(chan error, 1), s.Client
	go func() { follows <- follower.FollowExec(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, &followed) }()
	grows()
	for _, end := range []func() error{s.kill, s.terminate, s.kill} {
		restarted(end)
		grows()
	}
	if state, err := s.CancelExec(t.Context(), made.ID, cancelled.ID); err != nil || state.Result == nil || state.Result.TerminationReason != sandbox.Cancelled {
		t.Errorf("cancel of the one that only sleeps: %+v, %v", state, err)
	}
	clean(t, s.python(t, made.ID, "open('stop', 'w')"))
	state := hasEnded(t, s, made.ID, e.ID)
	if r := state.Result; r == nil || r.ExitCode != 6 || r.Stderr != "end\n" || r.StdoutTruncated || r.DurationMS < 100 {
		t.Fatalf("its end: %+v", state)
	}
	if err := <-follows; err != nil || followed.String() != state.Result.Stdout {
		t.Errorf("who followed over all of that: %v, %d bytes of %d", err, followed.Len(), len(state.Result.Stdout))
	}
	for i, line := range strings.Split(strings.TrimSpace(state.Result.Stdout), "\n") {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d is %q: something is missing or came twice", i+1, line)
		}
	}
	restarted(s.kill)
	again, err := s.ExecState(t.Context(), made.ID, e.ID)
	if err != nil || again.Result == nil || again.Result.Stdout != state.Result.Stdout || again.Result.ExitCode != 6 {
		t.Errorf("after one more restart: %+v, %v", again, err)
	}
}

// lastingAddress is one that nobody listens at, of a port that no connection is given (ip_local_port_range begins at 32768).
func lastingAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// hasEnded waits until an exec has.
func hasEnded(t *testing.T, s *server, id, execID string) sandbox.ExecState {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		state, err := s.ExecState(t.Context(), id, execID)
		if err != nil {
			t.Fatal(err)
		}
		if state.Status == sandbox.ExecFinished {
			return state
		}
		if time.Now().After(end) {
			t.Fatalf("it does not end: %+v", state)
		}
	}
}

func TestTheEndOfABackgroundProgramIsToldWhenTheServerIsBack(t *testing.T) {
	s := newServer(t)
	leakCheck(t, s)
	made := s.box(t, stateful())
	e, err := s.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "echo up; sleep 0.5; echo late; echo all > made; exit 6"}, Collect: []string{"made"}})
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := s.Background(t.Context(), made.ID, sandbox.ExecRequest{Code: new("import time; time.sleep(.5); x = bytearray(b'x' * (100 << 20))"), ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(64)}})
	if err != nil {
		t.Fatal(err)
	}
	lost := s.box(t, stateful())
	with, err := s.Background(t.Context(), lost.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "echo up; sleep 4007"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, meanwhile := range []func(){func() { time.Sleep(700 * time.Millisecond) }, func() { killMachines(t, s) }} {
		if err := s.kill(); err != nil {
			t.Fatal(err)
		}
		meanwhile()
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
	if state := hasEnded(t, s, made.ID, e.ID); state.Result == nil || state.Result.ExitCode != 6 || state.Result.Stdout != "up\nlate\n" || string(state.Result.Files["made"]) != "all\n" {
		t.Errorf("it ended while no server was there: %+v", state)
	}
	if state := hasEnded(t, s, made.ID, greedy.ID); state.Result == nil || !state.Result.OOMKilled || state.Result.ExitCode != 137 {
		t.Errorf("its memory ran out while no server was there: %+v", state)
	}
	if state := hasEnded(t, s, lost.ID, with.ID); state.Error == nil || state.Error.Code != sandbox.Lost {
		t.Errorf("its machine ended while no server was there: %+v", state)
	}
}

func TestProgramsInTheBackgroundAreCounted(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	request := sandbox.ExecRequest{Command: []string{"sleep", "4010"}}
	var last string
	for i := range 33 {
		e, err := shared.Background(t.Context(), made.ID, request)
		if i < 32 && err != nil {
			t.Fatal(i, err)
		}
		if i == 32 && (sandbox.CodeOf(err) != sandbox.QuotaExceeded || !strings.Contains(err.Error(), "32 programs")) {
			t.Fatal("one more:", err)
		}
		if err == nil {
			last = e.ID
		}
	}
	if _, err := shared.CancelExec(t.Context(), made.ID, last); err != nil {
		t.Fatal(err)
	}
	hasEnded(t, shared, made.ID, last)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := shared.Background(t.Context(), made.ID, request); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal("after the end of one:", err)
		}
	}
}

func TestAProgramCanBeInterrupted(t *testing.T) {
	leakCheck(t, shared)
	if out := clean(t, shared.once(t, sandbox.ExecuteRequest{}, "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGHUP) is signal.SIG_DFL)")); out != "True True" {
		t.Errorf("the server's starter decides what programs heed: %s", out)
	}
}

func TestOutputThatWasCutIsSaidToBe(t *testing.T) {
	s := newServer(t, "--output-stream-mb", "1")
	leakCheck(t, s)
	made := s.box(t, stateful())
	e, err := s.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "head -c 3000000 /dev/zero; echo whole >&2"}})
	if err != nil {
		t.Fatal(err)
	}
	var cut *client.CutError
	var followed bytes.Buffer
	if err := s.FollowExec(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, &followed); !errors.As(err, &cut) || cut.Total != 3_000_000 || cut.Kept != 1<<20 || followed.Len() != 1<<20 {
		t.Errorf("%v, %d bytes", err, followed.Len())
	}
	if err := s.FollowExec(t.Context(), made.ID, e.ID, sandbox.Stderr, 0, io.Discard); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{"logs", made.ID, e.ID}, {"logs", "-f", made.ID, e.ID}} {
		if r := finish(t, s.outpostCommand(args...)); r.code != 0 || len(r.stdout) != 1<<20 || !strings.Contains(r.stderr, "outpost: stdout was cut: 1048576 of 3000000 bytes shown") {
			t.Errorf("%q: %d, %d bytes, %s", args, r.code, len(r.stdout), r.stderr)
		}
	}
}

func TestABackgroundProgramWhoseFilesAreTooLargeTellsHowItEnded(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	e, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "head -c 9000000 /dev/zero > big; echo done; exit 3"}, Collect: []string{"big"}})
	if err != nil {
		t.Fatal(err)
	}
	state := hasEnded(t, shared, made.ID, e.ID)
	if state.Error == nil || state.Error.Code != sandbox.CollectTooLarge || state.ExitCode == nil || *state.ExitCode != 3 || state.Result == nil || state.Result.Stdout != "done\n" {
		t.Errorf("%+v", state)
	}
}

// TestASilentProgramGoesOnForWhoFollowsIt ends the server in order, which must not be taken for the program's end.

func TestATerminalIsRefusedWhereProgramsHoldAll(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	hold := "import os, time\ntry:\n    while True: os.open('/dev/ptmx', os.O_RDWR)\nexcept OSError as e: print(e.errno, flush=True)\ntime.sleep(60)"
	e, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Code: &hold})
	if err != nil {
		t.Fatal(err)
	}
	for o := (client.Output{}); o.Next == 0; o.Close() {
		if o, err = shared.ExecOutput(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	term, err := shared.OpenTerminal(t.Context(), made.ID, client.TerminalOptions{Command: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	if _, err := term.Show(io.Discard); sandbox.CodeOf(err) != sandbox.Conflict {
		t.Errorf("%v", err)
	}
}

// TestWhoFollowsMakesOneCall counts what the rate limit counts.
func TestWhoFollowsMakesOneCall(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	e, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "for i in $(seq 100); do echo $i; sleep .01; done"}})
	if err != nil {
		t.Fatal(err)
	}
	const calls = `outpost_http_requests_total{method="GET",route="/auth/v1/seed/{namespace}/sandbox/{id}/execs/{exec_id}/output"`
	count := func() (n float64) {
		for name, value := range shared.measured(t) {
			if strings.HasPrefix(name, calls) {
				n += value
			}
		}
		return n
	}
	before := count()
	var said strings.Builder
	if err := shared.FollowExec(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, &said); err != nil || strings.Count(said.String(), "\n") != 100 {
		t.Errorf("%d bytes, %v", said.Len(), err)
	}
	for end := time.Now().Add(10 * time.Second); count() == before && time.Now().Before(end); { // it is counted after its answer
		time.Sleep(10 * time.Millisecond)
	}
	if n := count() - before; n != 1 {
		t.Errorf("%v calls", n)
	}
}
