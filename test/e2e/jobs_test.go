package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/internal/jobs"
	"outpost.run/outpost/sandbox"
)

func (s *server) submit(t *testing.T, code string, change func(*sandbox.JobRequest)) sandbox.Job {
	t.Helper()
	r := sandbox.JobRequest{ExecuteRequest: sandbox.ExecuteRequest{Language: new("python"), Code: &code}}
	if change != nil {
		change(&r)
	}
	j, err := s.Submit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// ends waits for the end of a job.
func (s *server) ends(t *testing.T, id string) sandbox.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	j, err := s.AwaitJob(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// awaitStatus waits until a job has a status.
func (s *server) awaitStatus(t *testing.T, id string, want sandbox.JobStatus) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if j, err := s.Job(t.Context(), id); err != nil {
			t.Fatal(err)
		} else if j.Status == want {
			return
		}
	}
	t.Fatalf("%s is never %s", id, want)
}

func TestJobsSurviveTheServersDeath(t *testing.T) {
	s := newServer(t, "--jobs-concurrency", "2")
	leakCheck(t, s)
	made := s.box(t, stateful())
	in := func(r *sandbox.JobRequest) { r.Language, r.SandboxID = nil, &made.ID }
	running := s.submit(t, "open('runs', 'a').write('x')\nimport time\nif len(open('runs').read()) == 1: time.sleep(1000)\nprint('second')", in)
	clean(t, s.python(t, made.ID, "import os\nwhile not os.path.exists('runs'): pass"))
	var waiting []string
	for range 5 {
		waiting = append(waiting, s.submit(t, "print('waited')", nil).ID)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if j := s.ends(t, running.ID); j.Status != sandbox.JobSucceeded || j.Attempts != 2 || j.Result.Stdout != "second\n" {
		t.Errorf("the one that ran: %+v", j)
	}
	for _, id := range waiting {
		if j := s.ends(t, id); j.Status != sandbox.JobSucceeded || j.Result.Stdout != "waited\n" {
			t.Errorf("one that waited: %+v", j)
		}
	}
	if err := s.terminate(); err != nil { // with one that runs: it is cut off after its time, and taken up again
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

func TestAJobsOutputIsFollowedAndItsCancelKills(t *testing.T) {
	leakCheck(t, shared)
	j := shared.submit(t, "import time\nfor i in range(3): print(i, flush=True); time.sleep(.2)", nil)
	var out bytes.Buffer
	if err := shared.FollowJob(t.Context(), j.ID, sandbox.Stdout, &out, nil); err != nil || out.String() != "0\n1\n2\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	long := shared.submit(t, "import time; print('so far', flush=True); time.sleep(1000)", nil)
	shared.awaitStatus(t, long.ID, sandbox.JobRunning)
	cancelled, err := shared.CancelJob(t.Context(), long.ID)
	if err != nil || cancelled.Status != sandbox.JobCancelled && cancelled.Status != sandbox.JobRunning {
		t.Errorf("%+v, %v", cancelled, err)
	}
	if j := shared.ends(t, long.ID); j.Status != sandbox.JobCancelled {
		t.Errorf("%+v", j)
	}
	if _, err := shared.CancelJob(t.Context(), long.ID); sandbox.CodeOf(err) != sandbox.AlreadyFinished {
		t.Error(err)
	}
	if j := shared.ends(t, shared.submit(t, "import sys; sys.exit(4)", func(r *sandbox.JobRequest) { r.MaxAttempts = new(2) }).ID); j.Status != sandbox.JobFailed || j.Attempts != 2 || j.Result.ExitCode != 4 {
		t.Errorf("%+v", j)
	}
}

func TestACallbackIsSignedAndRepeatedUntilItIsHeard(t *testing.T) {
	refuse := 1
	heard := make(chan *http.Request, 10)
	body := make(chan []byte, 10)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse--; refuse >= 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		b, _ := io.ReadAll(r.Body)
		heard <- r
		body <- b
	}))
	defer h.Close()
	s := newServer(t, "--jobs-callback-allow", `["127.0.0.0/8"]`)
	leakCheck(t, s)
	j := s.submit(t, "print('told')", func(r *sandbox.JobRequest) { r.CallbackURL = new(h.URL + "/hook") })
	r, b := <-heard, <-body
	key, err := s.CallbackKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := "sha256=" + jobs.Sign(key, r.Header.Get(jobs.TimestampHeader), b); r.Header.Get(jobs.SignatureHeader) != want {
		t.Errorf("signed %s, want %s", r.Header.Get(jobs.SignatureHeader), want)
	}
	var told sandbox.Job
	if err := json.Unmarshal(b, &told); err != nil || told.ID != j.ID || told.Status != sandbox.JobSucceeded || told.Result.Stdout != "told\n" {
		t.Errorf("%s, %v", b, err)
	}
	if _, err := shared.Submit(t.Context(), sandbox.JobRequest{ExecuteRequest: sandbox.ExecuteRequest{Language: new("python"), Code: new("1")}, CallbackURL: &h.URL}); sandbox.CodeOf(err) != sandbox.Invalid {
		t.Errorf("without the operator's word: %v", err)
	}
}

func TestJobsByTheCommandLine(t *testing.T) {
	leakCheck(t, shared)
	id, err := shared.command("job", "submit", "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
	if id = strings.TrimSpace(id); err != nil || !strings.HasPrefix(id, sandbox.JobPrefix) {
		t.Fatalf("%q, %v", id, err)
	}
	out, err := shared.command("job", "logs", "-f", id)
	if exitCodeOf(err) != 3 || !strings.Contains(out, "out\n") || !strings.Contains(out, "err\n") {
		t.Errorf("logs: %q, %v", out, err)
	}
	if out, err = shared.command("job", "ls", "--status", "failed"); err != nil || !strings.Contains(out, id) {
		t.Errorf("ls: %q, %v", out, err)
	}
}

func TestTheOutputOfEachAttemptIsFollowed(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	code := "import os, sys\nn = len([f for f in os.listdir('.') if f.startswith('tried')]) + 1\nopen(f'tried{n}', 'w')\nprint(f'attempt {n}', 'long ' * (4 - n), flush=True)\nsys.exit(n < 3)"
	j, err := shared.Submit(t.Context(), sandbox.JobRequest{ExecuteRequest: sandbox.ExecuteRequest{SandboxID: &made.ID, Code: &code}, MaxAttempts: new(3)})
	if err != nil {
		t.Fatal(err)
	}
	out, err := shared.command("job", "logs", "-f", j.ID)
	want := "attempt 1 long long long \noutpost: attempt 2\nattempt 2 long long \noutpost: attempt 3\nattempt 3 long \n"
	if err != nil || out != want {
		t.Errorf("%v\n%s", err, out)
	}
	o, err := shared.JobOutput(t.Context(), j.ID, sandbox.Stdout, 0, 0)
	if err != nil || o.Attempt != 3 || !o.Finished {
		t.Errorf("%+v, %v", o, err)
	}
	o.Close()
}

func TestWhoFollowsAJobThatIsCancelledHearsItsEnd(t *testing.T) {
	leakCheck(t, shared)
	job := shared.submit(t, "import time\nprint('begun', flush=True)\ntime.sleep(600)", nil)
	shared.awaitStatus(t, job.ID, sandbox.JobRunning)
	cmd := shared.outpostCommand("job", "logs", "-f", job.ID)
	var out heard
	out.f = func(sofar string) {
		if sofar == "begun\n" {
			if _, err := shared.CancelJob(t.Context(), job.ID); err != nil {
				t.Error(err)
			}
		}
	}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = struct{ io.Writer }{&out}, &log // else the buffer reads by itself
	if code := exitCodeOf(cmd.Run()); code != 137 || out.String() != "begun\n" || !strings.Contains(log.String(), "cancelled") {
		t.Errorf("%d, %q, %q", code, out.String(), log.String())
	}
}

func TestAJobTellsWhatItIs(t *testing.T) {
	leakCheck(t, shared)
	j := shared.ends(t, shared.submit(t, "\nimport sys; sys.exit(4)\n", nil).ID)
	if j.Command != "import sys; sys.exit(4)" || j.ExitCode == nil || *j.ExitCode != 4 || j.Callback != nil {
		t.Errorf("%+v", j)
	}
	if e := finish(t, shared.outpostCommand("job", "ls")); e.code != 0 || !strings.Contains(e.stdout, "   4      ") || !strings.Contains(e.stdout, "   "+j.Command+"\n") {
		t.Errorf("%+v", e)
	}
}

// TestWhatIsSubmittedWaitsForNoPipe has a standard input that nobody closes, as a service's may be.
func TestWhatIsSubmittedWaitsForNoPipe(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	in, open, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer open.Close()
	file := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"exec", "-d", made.ID, "--", "cat"}, {"job", "submit", "--sandbox", made.ID, "-l", "bash", "-c", "cat"}} {
		cmd := shared.outpostCommand(args...)
		cmd.Stdin = in
		if e := finish(t, cmd); e.code != 0 {
			t.Errorf("%q: %+v", args, e)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		cmd = shared.outpostCommand(args...)
		cmd.Stdin = f
		e := finish(t, cmd)
		f.Close()
		logs := append([]string{"logs", "-f", made.ID}, strings.Fields(e.stdout)...)
		if args[0] == "job" {
			logs = append([]string{"job", "logs", "-f"}, strings.Fields(e.stdout)...)
		}
		if e := finish(t, shared.outpostCommand(logs...)); e.code != 0 || e.stdout != "from a file" {
			t.Errorf("%q: %+v", args, e)
		}
	}
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	if e := finish(t, shared.outpostCommand("image", "ls", "--data-dir", nowhere)); e.code != 1 {
		t.Errorf("%+v", e)
	}
	if _, err := os.Stat(nowhere); err == nil {
		t.Error("a look made a data directory")
	}
}
