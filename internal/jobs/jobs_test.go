package jobs

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/store/sqlitefile"
	"outpost.run/outpost/sandbox"
)

// world is a queue whose programs are functions.
type world struct {
	*testing.T
	*Queue
	o   Options
	run func(ctx context.Context, j service.JobSpec) service.JobOutcome
}

func openWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{T: t, o: Options{
		Dir: t.TempDir(), Concurrency: 4, MaxQueued: 100_000, MaxQueuedInAll: 1_000_000, MaxQueuedBytes: 1 << 30, Keep: time.Hour, KeepBytes: 1 << 30, Secret: []byte("secret"),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}}
	if change != nil {
		change(&w.o)
	}
	if w.o.PerNamespace == 0 {
		w.o.PerNamespace = w.o.Concurrency
	}
	w.run = func(context.Context, service.JobSpec) service.JobOutcome { return exits(0) }
	w.open()
	t.Cleanup(func() { _ = w.Close(context.Background()) })
	return w
}

func (w *world) open() {
	w.Helper()
	q, err := Open(w.Context(), w.o)
	if err != nil {
		w.Fatal(err)
	}
	q.back = backoff{first: time.Millisecond, most: 10 * time.Millisecond, busy: time.Millisecond, busiest: 10 * time.Millisecond}
	w.Queue = q
}

func (w *world) start() {
	w.Helper()
	if err := w.Start(w.Context(), func(ctx context.Context, j service.JobSpec) service.JobOutcome { return w.run(ctx, j) }); err != nil {
		w.Fatal(err)
	}
}

// crash is the process's end: nothing is written any more.
func (w *world) crash() {
	w.Helper()
	w.Pause()
	w.end()
	if err := w.closeFiles(); err != nil {
		w.Fatal(err)
	}
}

func exits(code int) service.JobOutcome {
	return service.JobOutcome{Result: &sandbox.ExecResult{ExitCode: code, TerminationReason: sandbox.Exited, Stdout: "out"}}
}

func fails(code sandbox.Code) service.JobOutcome {
	return service.JobOutcome{Err: sandbox.Errorf(code, nil, "no")}
}

func (w *world) submit(change func(*service.JobSpec)) string {
	w.Helper()
	j := service.JobSpec{ID: sandbox.NewID(sandbox.JobPrefix), Namespace: "a", MaxAttempts: 1}
	if change != nil {
		change(&j)
	}
	job, err := w.Submit(w.Context(), j)
	if err != nil {
		w.Fatal(err)
	}
	if job.Status != sandbox.JobQueued && job.Status != sandbox.JobRunning && !job.Status.Ended() {
		w.Errorf("submitted: %+v", job)
	}
	return job.ID
}

func of(namespace string) func(*service.JobSpec) {
	return func(j *service.JobSpec) { j.Namespace = namespace }
}

// ends waits until a job has ended.
func (w *world) ends(namespace, id string) sandbox.Job {
	w.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		j, _, err := w.Job(w.Context(), namespace, id)
		if err != nil {
			w.Fatal(err)
		}
		if j.Status.Ended() {
			return j
		}
		if time.Now().After(end) {
			w.Fatalf("it does not end: %+v", j)
		}
	}
}

func (w *world) wants(what string, j sandbox.Job, status sandbox.JobStatus, attempts int) {
	w.Helper()
	if j.Status != status || j.Attempts != attempts {
		w.Errorf("%s: %s after %d attempts, want %s after %d (%+v)", what, j.Status, j.Attempts, status, attempts, j.Error)
	}
}

func TestWhatBecomesOfAJob(t *testing.T) {
	w := openWorld(t, nil)
	tries := map[string]int{}
	var mu sync.Mutex
	w.run = func(_ context.Context, j service.JobSpec) service.JobOutcome {
		mu.Lock()
		defer mu.Unlock()
		tries[j.ID]++
		switch word, _, _ := strings.Cut(*j.Request.Code, " "); word {
		case "fail":
			return exits(3)
		case "late":
			return service.JobOutcome{Result: &sandbox.ExecResult{ExitCode: 124, TimedOut: true, TerminationReason: sandbox.TimedOut}}
		case "third":
			return exits(max(0, 3-tries[j.ID]))
		case "busy":
			if tries[j.ID] < 4 {
				return fails(sandbox.QuotaExceeded)
			}
		case "wrong":
			return fails(sandbox.UserNotFound)
		case "lost":
			return fails(sandbox.Lost)
		case "cut": // once by the end of its machine, and then it fails
			if tries[j.ID] == 1 {
				return fails(sandbox.Lost)
			}
			return exits(1)
		case "panic":
			panic("a bug")
		}
		return exits(0)
	}
	w.start()
	for _, c := range []struct {
		code     string
		most     int
		status   sandbox.JobStatus
		attempts int
	}{
		{"ok", 1, sandbox.JobSucceeded, 1}, {"fail", 1, sandbox.JobFailed, 1}, {"fail", 3, sandbox.JobFailed, 3}, {"late", 1, sandbox.JobTimedOut, 1},
		{"third", 5, sandbox.JobSucceeded, 3}, {"busy", 1, sandbox.JobSucceeded, 1}, {"wrong", 5, sandbox.JobFailed, 1}, {"lost", 1, sandbox.JobFailed, maxCut + 1},
		{"lost", 2, sandbox.JobFailed, maxCut + 2}, {"cut", 2, sandbox.JobFailed, 3}, {"panic", 1, sandbox.JobFailed, 1},
	} {
		id := w.submit(func(j *service.JobSpec) { j.Request.Code, j.MaxAttempts = &c.code, c.most })
		j := w.ends("a", id)
		w.wants(fmt.Sprintf("%s, at most %d", c.code, c.most), j, c.status, c.attempts)
		if j.Result != nil && (j.ExitCode == nil || *j.ExitCode != j.Result.ExitCode) || j.Callback != nil {
			t.Errorf("%s: exit code %v, callback %v", c.code, j.ExitCode, j.Callback)
		}
		if has := j.Result != nil; has == (j.Error != nil) || j.FinishedAt == nil || j.StartedAt == nil || j.StartedAt.Before(j.CreatedAt.Time) {
			t.Errorf("%s: %+v", c.code, j)
		}
	}
}

func TestOnesThousandsDelayNoOthersOne(t *testing.T) {
	w := openWorld(t, nil)
	var before int
	var mu sync.Mutex
	w.run = func(_ context.Context, j service.JobSpec) service.JobOutcome {
		time.Sleep(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		before++
		return exits(0)
	}
	tx, err := w.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 { // as Submit does, in one transaction
		if _, err := tx.Exec(`INSERT INTO jobs (id, namespace, status, priority, max_attempts, created_at, spec) VALUES (?, 'greedy', 'queued', 10, 1, ?, CAST('{"Namespace":"greedy"}' AS BLOB))`,
			fmt.Sprintf("job_%012d", i), sandbox.Now().String()); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	w.start()
	id := w.submit(of("modest"))
	w.wants("the other's one", w.ends("modest", id), sandbox.JobSucceeded, 1)
	mu.Lock()
	defer mu.Unlock()
	if before > 200 {
		t.Errorf("%d of the 10,000 came before it", before)
	}
}

func TestTheHighestPriorityBeginsFirst(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.Concurrency = 1 })
	var order []int
	w.run = func(_ context.Context, j service.JobSpec) service.JobOutcome {
		order = append(order, j.Priority)
		return exits(0)
	}
	var ids []string
	for _, p := range []int{0, -10, 10, 3, -1, 10} {
		ids = append(ids, w.submit(func(j *service.JobSpec) { j.Priority = p }))
	}
	w.start()
	for _, id := range ids {
		w.ends("a", id)
	}
	if got := fmt.Sprint(order); got != "[10 10 3 0 -1 -10]" {
		t.Error(got)
	}
}

func TestNamespacesHaveNoMoreThanTheirShareAtOnce(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.Concurrency, o.PerNamespace = 4, 2 })
	var mu sync.Mutex
	now, most := map[string]int{}, map[string]int{}
	two := make(chan struct{})
	w.run = func(_ context.Context, j service.JobSpec) service.JobOutcome {
		mu.Lock()
		now[j.Namespace]++
		if now[j.Namespace] == 2 && most[j.Namespace] < 2 {
			close(two)
		}
		most[j.Namespace] = max(most[j.Namespace], now[j.Namespace])
		mu.Unlock()
		<-two
		time.Sleep(20 * time.Millisecond) // in which a third would begin
		mu.Lock()
		now[j.Namespace]--
		mu.Unlock()
		return exits(0)
	}
	w.start()
	var ids []string
	for range 20 {
		ids = append(ids, w.submit(nil))
	}
	for _, id := range ids {
		w.ends("a", id)
	}
	if most["a"] != 2 {
		t.Errorf("%d at once", most["a"])
	}
}

func TestAJobIsCancelledInEachState(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.Concurrency = 1 })
	running := make(chan struct{}, 1)
	w.run = func(ctx context.Context, j service.JobSpec) service.JobOutcome {
		running <- struct{}{}
		<-ctx.Done()
		return service.JobOutcome{Result: &sandbox.ExecResult{TerminationReason: sandbox.Cancelled, ExitCode: 137}}
	}
	w.start()
	first, second := w.submit(nil), w.submit(nil)
	<-running
	for i, id := range []string{second, first} { // else the second begins when the first has ended
		attempts := i
		j, err := w.Cancel(t.Context(), "a", id)
		if err != nil {
			t.Error(err)
		}
		w.wants("cancelled", j, sandbox.JobCancelled, attempts)
		if _, err := w.Cancel(t.Context(), "a", id); sandbox.CodeOf(err) != sandbox.AlreadyFinished {
			t.Errorf("again: %v", err)
		}
	}
	for _, id := range []string{first, "job_nobody"} {
		if _, err := w.Cancel(t.Context(), "b", id); sandbox.CodeOf(err) != sandbox.NotFound {
			t.Errorf("another's: %v", err)
		}
	}
}

func TestACrashLosesNoJobAndRepeatsWhatRan(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.Concurrency = 2 })
	running := make(chan string, 10)
	hang := make(chan struct{})
	w.run = func(_ context.Context, j service.JobSpec) service.JobOutcome {
		running <- j.ID
		<-hang
		return exits(0)
	}
	w.start()
	var ids []string
	for range 5 {
		ids = append(ids, w.submit(nil))
	}
	ran := map[string]int{<-running: 2, <-running: 2}
	w.crash()
	close(hang)
	w.run = func(context.Context, service.JobSpec) service.JobOutcome { return exits(0) }
	w.open()
	w.start()
	for _, id := range ids {
		w.wants("after the crash", w.ends("a", id), sandbox.JobSucceeded, max(1, ran[id]))
	}
}

func TestAJobThatEndsServersEnds(t *testing.T) {
	w := openWorld(t, nil)
	running, hang := make(chan struct{}), make(chan struct{})
	defer close(hang)
	w.run = func(context.Context, service.JobSpec) service.JobOutcome {
		running <- struct{}{}
		<-hang
		return exits(0)
	}
	w.start()
	id := w.submit(nil)
	for range maxCut + 1 {
		<-running
		w.crash()
		w.open()
		w.start()
	}
	j := w.ends("a", id)
	w.wants("at last", j, sandbox.JobFailed, maxCut+1)
	if j.Error == nil || j.Error.Code != sandbox.Lost {
		t.Errorf("%+v", j.Error)
	}
}

func TestAFullQueueRefusesAndSaysWhenToTryAgain(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.MaxQueued, o.MaxQueuedInAll = 2, 3 })
	w.submit(nil)
	w.submit(nil)
	for namespace, want := range map[string]sandbox.Code{"a": sandbox.QuotaExceeded, "c": sandbox.Capacity} {
		if namespace == "c" {
			w.submit(of("b"))
		}
		_, err := w.Submit(t.Context(), service.JobSpec{ID: sandbox.NewID(sandbox.JobPrefix), Namespace: namespace, MaxAttempts: 1})
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Code != want || e.RetryAfterSecs == 0 {
			t.Errorf("%s: %v, want %s", namespace, err, want)
		}
	}
}

func TestLargeResultsAreFilesThatGoWithTheirJobs(t *testing.T) {
	w := openWorld(t, nil)
	big := strings.Repeat("x", 3*inRow)
	w.run = func(context.Context, service.JobSpec) service.JobOutcome {
		o := exits(0)
		o.Result.Stdout = big
		return o
	}
	w.start()
	id := w.submit(nil)
	if j := w.ends("a", id); j.Result == nil || j.Result.Stdout != big {
		t.Errorf("%+v", j)
	}
	if st, err := os.Stat(w.file(id, 1)); err != nil || st.Mode().Perm() != 0o600 || len(w.files()) != 1 {
		t.Errorf("%v, %v", w.files(), err)
	}
	if err := os.WriteFile(filepath.Join(w.o.Dir, "job_orphan.json.draft"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.forget(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Job(t.Context(), "a", id); sandbox.CodeOf(err) != sandbox.NotFound || len(w.files()) > 0 {
		t.Errorf("after its time: %v, %v", err, w.files())
	}
}

func TestAnEndIsToldSignedUntilItIsHeard(t *testing.T) {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	w := openWorld(t, func(o *Options) { o.CallbackAllow = []netip.Prefix{loopback} })
	type call struct {
		body  []byte
		stamp string
		sign  string
	}
	calls := make(chan call, 10)
	refuse := 2
	h := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if refuse--; refuse >= 0 {
			http.Redirect(rw, r, "/elsewhere", http.StatusFound)
			return
		}
		body, _ := io.ReadAll(r.Body)
		calls <- call{body, r.Header.Get(TimestampHeader), r.Header.Get(SignatureHeader)}
	}))
	defer h.Close()
	w.start()
	id := w.submit(func(j *service.JobSpec) { j.CallbackURL = h.URL + "/hook" })
	c := <-calls
	if want := "sha256=" + Sign(w.CallbackKey("a"), c.stamp, c.body); c.sign != want {
		t.Errorf("signed %s, want %s", c.sign, want)
	}
	if !bytes.Contains(c.body, []byte(id)) || !bytes.Contains(c.body, []byte(`"succeeded"`)) {
		t.Errorf("%s", c.body)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if j := w.ends("a", id); j.Callback != nil && *j.Callback == "heard" {
			break
		} else if j.Callback == nil || *j.Callback != "waiting" || time.Now().After(end) {
			t.Fatalf("it is not known to be heard: %+v", j)
		}
	}
	if w.CallbackKey("a") == w.CallbackKey("b") {
		t.Error("namespaces share a key")
	}
}

func TestNoCallbackGoesToPrivateAddresses(t *testing.T) {
	w := openWorld(t, nil)
	h := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was called") }))
	defer h.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(h.URL, "http://"), ":")
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"} {
		res, err := w.callbackClient().Post("http://"+host+":"+port, "text/plain", nil)
		if err == nil {
			res.Body.Close()
			t.Errorf("%s was called", host)
		}
	}
}

func TestListsArePagedAndFiltered(t *testing.T) {
	w := openWorld(t, nil)
	for range 3 {
		w.submit(nil)
	}
	w.submit(of("b"))
	rows, total, err := w.Jobs(t.Context(), service.JobQuery{Namespace: "a", Status: "queued", Paging: service.Paging{Page: 2, PerPage: 2}})
	if err != nil || len(rows) != 1 || total != 3 {
		t.Errorf("%d of %d, %v", len(rows), total, err)
	}
	if _, _, err := w.Jobs(t.Context(), service.JobQuery{Namespace: "a", Paging: service.Paging{Page: 1, PerPage: 2, Sort: "spec"}}); err == nil {
		t.Error("sorted by what nobody may see")
	}
	var mode, sync string
	for pragma, into := range map[string]*string{"journal_mode": &mode, "synchronous": &sync} {
		if err := w.db.QueryRow("PRAGMA " + pragma).Scan(into); err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.Fatal(err)
		}
	}
	if mode != "wal" || sync != "2" {
		t.Errorf("journal_mode %s, synchronous %s: a job that was accepted may go with the power", mode, sync)
	}
}

func TestAnAttemptThatIsCancelledBeforeItBeginsRunsNothing(t *testing.T) {
	w := openWorld(t, nil)
	w.run = func(context.Context, service.JobSpec) service.JobOutcome {
		t.Error("it ran")
		return exits(0)
	}
	id := w.submit(nil)
	a, err := w.take(t.Context(), "a") // as the dispatcher does before River has it
	if err != nil {
		t.Fatal(err)
	}
	w.out["a"], w.all = 1, 1
	cancelled := make(chan sandbox.Job, 1)
	go func() {
		j, err := w.Cancel(t.Context(), "a", id)
		if err != nil {
			t.Error(err)
		}
		cancelled <- j
	}()
	<-a.ctx.Done()
	w.attempt(id)
	w.wants("cancelled", <-cancelled, sandbox.JobCancelled, 1)
	if len(w.out) != 0 || w.all != 0 || len(w.running) != 0 {
		t.Errorf("left: %v, %v", w.out, w.running)
	}
}

// says is a program whose first attempts say so much and fail.
func says(bytes ...int) func(context.Context, service.JobSpec) service.JobOutcome {
	return func(_ context.Context, j service.JobSpec) service.JobOutcome {
		o := exits(1)
		if j.Attempt > len(bytes) {
			return fails(sandbox.UserNotFound)
		}
		o.Result.Stdout = strings.Repeat("x", bytes[j.Attempt-1])
		return o
	}
}

// sizes are what the queue counts of a job.
func (w *world) sizes(id string) (size, result int) {
	w.Helper()
	if err := w.db.QueryRow(`SELECT size, result_size FROM jobs WHERE id = ?`, id).Scan(&size, &result); err != nil {
		w.Fatal(err)
	}
	return size, result
}

// files are those of results.
func (w *world) files() (names []string) {
	w.Helper()
	all, err := filepath.Glob(filepath.Join(w.o.Dir, "job_*"))
	if err != nil {
		w.Fatal(err)
	}
	for _, name := range all {
		names = append(names, filepath.Base(name))
	}
	return names
}

// waits lets a job wait long after its last attempt.
func (w *world) waits(id string, attempts int) {
	w.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		j, _, err := w.Job(w.Context(), "a", id)
		if err != nil {
			w.Fatal(err)
		}
		if j.Status == sandbox.JobQueued && j.Attempts == attempts {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("it does not wait: %+v", j)
		}
	}
}

func TestResultsInFilesCountAndGoWithTheNext(t *testing.T) {
	w := openWorld(t, nil)
	w.run = says(3*inRow, 2*inRow, 10)
	w.start()
	id := w.submit(func(j *service.JobSpec) { j.MaxAttempts = 4 })
	j := w.ends("a", id) // by an attempt without a result: that of the third stays
	if size, result := w.sizes(id); j.Result == nil || len(j.Result.Stdout) != 10 || size < result+1024 || size > result+1200 || result < 10 || result > 1000 {
		t.Errorf("%+v; %d, %d bytes", j, size, result)
	}
	if err := w.sweep(t.Context()); err != nil || len(w.files()) != 0 {
		t.Errorf("files of results that others replaced: %v, %v", w.files(), err)
	}
	w.back.first, w.back.most = 5*time.Minute, 5*time.Minute
	w.run = says(3 * inRow)
	id = w.submit(func(j *service.JobSpec) { j.MaxAttempts = 2 })
	w.waits(id, 1)
	if _, err := w.Cancel(t.Context(), "a", id); err != nil {
		t.Fatal(err)
	}
	if size, result := w.sizes(id); size != result+1024 || size < 3*inRow || len(w.files()) != 1 {
		t.Errorf("a result in a file when its job is cancelled: %d, %d bytes, %v", size, result, w.files())
	}
}

func TestResultsOfJobsThatWaitAreTheFirstToGo(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.KeepBytes = 10 * inRow })
	w.back.first, w.back.most = 5*time.Minute, 5*time.Minute
	w.run = says(3*inRow, 3*inRow)
	w.start()
	ended := w.submit(nil)
	w.ends("a", ended)
	wait := w.submit(func(j *service.JobSpec) { j.MaxAttempts = 2 })
	w.waits(wait, 1)
	before := time.Now().Add(-time.Hour)
	if err := w.forget(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if j, _, err := w.Job(t.Context(), "a", wait); err != nil || j.Result != nil || j.Attempts != 1 {
		t.Errorf("the one that waits: %+v, %v", j, err)
	}
	if j, _, err := w.Job(t.Context(), "a", ended); err != nil || j.Result == nil || len(w.files()) != 1 {
		t.Errorf("the one that ended: %+v, %v; %v", j, err, w.files())
	}
	told := w.submit(func(j *service.JobSpec) { j.CallbackURL = "http://127.0.0.1:1/" })
	if j := w.ends("a", told); j.Result == nil {
		t.Errorf("%+v", j)
	}
	w.run = says(4 * inRow)
	w.ends("a", w.submit(nil))
	if err := w.forget(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if j, _, err := w.Job(t.Context(), "a", told); err != nil || j.Result != nil {
		t.Errorf("one that is still to be told: %+v, %v", j, err)
	}
	if _, _, err := w.Job(t.Context(), "a", ended); sandbox.CodeOf(err) != sandbox.NotFound {
		t.Errorf("the oldest: %v", err)
	}
}

func TestResultsOfAnEarlierVersionAreTakenOver(t *testing.T) {
	dir := t.TempDir()
	db, err := sqlitefile.Open(filepath.Join(dir, "jobs.db"), "FULL", 1)
	if err != nil {
		t.Fatal(err)
	}
	sub, _ := fs.Sub(migrations, "migrations")
	p, err := goose.NewProvider(goose.DialectSQLite3, db, sub)
	if err == nil {
		_, err = p.UpTo(t.Context(), 2)
	}
	for _, values := range []string{
		`('job_file', 'a', 'failed', 0, 2, 2, '2030-01-01T00:00:00.000Z', '2030-01-01T00:00:00.000Z', CAST('{"ID":"job_file","CallbackURL":"","Request":{"code":"secret"}}' AS BLOB), NULL, 1, 2)`,
		`('job_none', 'a', 'cancelled', 0, 3, 3, '2030-01-01T00:00:00.000Z', '2030-01-01T00:00:00.000Z', CAST('{"ID":"job_none"}' AS BLOB), NULL, 0, 3)`,
		`('job_waits', 'a', 'queued', 0, 1, 1, '2030-01-01T00:00:00.000Z', NULL, CAST('{"ID":"job_waits","Namespace":"a","Request":{"code":"x"}}' AS BLOB), NULL, 0, 0)`,
	} {
		if err == nil {
			_, err = db.Exec(`INSERT INTO jobs (id, namespace, status, priority, attempts, max_attempts, created_at, finished_at, spec, result, in_file, result_of) VALUES ` + values)
		}
	}
	if err == nil {
		_, err = db.Exec(`CREATE TABLE river_job (id INTEGER)`)
	}
	result := []byte(`{"stdout":"` + strings.Repeat("x", 2*inRow) + `"}`)
	if err = errors.Join(err, db.Close(), os.WriteFile(filepath.Join(dir, "job_file.json"), result, 0o600)); err != nil {
		t.Fatal(err)
	}
	w := openWorld(t, func(o *Options) { o.Dir = dir })
	w.start()
	if j, _, err := w.Job(t.Context(), "a", "job_file"); err != nil || j.Result == nil || len(j.Result.Stdout) != 2*inRow {
		t.Errorf("%+v, %v", j, err)
	}
	if size, of := w.sizes("job_file"); size != len(result) || of != len(result) || fmt.Sprint(w.files()) != "[job_file.2.json]" {
		t.Errorf("%d, %d bytes, %v", size, of, w.files())
	}
	if _, resultOf, err := w.State(t.Context(), "a", "job_none"); err != nil || resultOf != 0 {
		t.Errorf("it claims the result of attempt %d, %v", resultOf, err)
	}
	var secrets int
	if err := w.db.QueryRow(`SELECT count(*) FROM jobs WHERE spec LIKE '%secret%'`).Scan(&secrets); err != nil || secrets != 0 {
		t.Errorf("%d rows have all that was submitted, %v", secrets, err)
	}
	w.wants("one that waited", w.ends("a", "job_waits"), sandbox.JobSucceeded, 2)
}

func TestADraftOfAnEarlierVersionIsNoResult(t *testing.T) {
	w := openWorld(t, nil)
	w.run = says(3 * inRow)
	w.start()
	id := w.submit(nil)
	w.ends("a", id)
	w.crash()
	old := filepath.Join(w.o.Dir, id+".json")
	if err := errors.Join(os.Rename(w.file(id, 1), old), os.WriteFile(old+".draft", []byte(`{"stdout":"ha`), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.start()
	if j, _, err := w.Job(t.Context(), "a", id); err != nil || j.Result == nil || len(j.Result.Stdout) != 3*inRow {
		t.Errorf("%+v, %v", j.Result, err)
	}
	if size, result := w.sizes(id); size < 3*inRow || result != size || fmt.Sprint(w.files()) != "["+id+".1.json]" {
		t.Errorf("%d, %d bytes, %v", size, result, w.files())
	}
}

func TestAJobIsKnownWithoutTheFileOfItsResult(t *testing.T) {
	w := openWorld(t, nil)
	w.run = says(3 * inRow)
	w.start()
	id := w.submit(nil)
	w.ends("a", id)
	if err := os.Remove(w.file(id, 1)); err != nil {
		t.Fatal(err)
	}
	if j, _, err := w.Job(t.Context(), "a", id); err != nil || j.Status != sandbox.JobFailed || j.Result != nil {
		t.Errorf("%+v, %v", j, err)
	}
}

func TestWhatWasHandedOutAndDidNotBeginIsNoAttempt(t *testing.T) {
	w := openWorld(t, nil)
	id := w.submit(nil)
	if _, err := w.take(t.Context(), "a"); err != nil { // as the dispatcher does before River has it
		t.Fatal(err)
	}
	w.out["a"], w.all = 1, 1
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.start()
	w.wants("after the stop", w.ends("a", id), sandbox.JobSucceeded, 1)
}

func TestNoMoreResultsGoThanMust(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.KeepBytes = 1000 })
	for i, row := range []string{ // the oldest first
		`'a', 'succeeded', 200, 200, 0`, `'a', 'succeeded', 200, 200, 3`, `'a', 'queued', 50, 200, 0`, `'a', 'running', 50, 900, 0`, `'a', 'succeeded', 200, 200, 0`,
		`'b', 'succeeded', 100, 100, 0`, `'b', 'succeeded', 300, 300, 0`, `'b', 'queued', 50, 50, 0`,
		`'c', 'succeeded', 300, 300, 0`,
	} {
		at := fmt.Sprintf("2030-01-01T00:00:%02d.000Z", i)
		if _, err := w.db.Exec(`INSERT INTO jobs (namespace, status, size, result_size, callback_left, id, priority, max_attempts, created_at, started_at, finished_at, spec, result, result_of)
			SELECT *, ?, 0, 2, ?, ?, iif(column2 IN ('queued', 'running'), NULL, ?), CAST('{}' AS BLOB), CAST('{}' AS BLOB), 1 FROM (VALUES (`+row+`))`, fmt.Sprintf("job_%d", i), at, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.forget(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	var left string
	if err := w.db.QueryRow(`SELECT group_concat(id || ' ' || size || ' ' || result_size || ' ' || result_of, ', ' ORDER BY seq) FROM jobs`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	// Of a, 300 of 800 are too many: the one that waits loses its result, and the oldest goes. Of all that are left, 150 of 1150.
	if want := "job_1 0 0 0, job_2 50 0 0, job_3 50 900 1, job_4 200 200 1, job_5 100 100 1, job_6 300 300 1, job_7 50 0 0, job_8 300 300 1"; left != want {
		t.Errorf("left: %s", left)
	}
}

func TestWhatIsHandedOutBeginsAtOnce(t *testing.T) {
	w := openWorld(t, nil)
	began := make(chan time.Time, 1)
	w.run = func(context.Context, service.JobSpec) service.JobOutcome {
		began <- time.Now()
		return exits(0)
	}
	w.start()
	least := time.Minute // others' load makes many of them slow
	for range 21 {
		j := w.ends("a", w.submit(nil))
		least = min(least, (<-began).Sub(j.StartedAt.Time))
	}
	if least > 35*time.Millisecond { // where River looks every 50 ms: 41, as each is submitted just after a look
		t.Errorf("each of them waited %v at least", least)
	}
}

// rows puts jobs of namespace n that have ended in, in one transaction.
func (w *world) rows(n string, many int, columns string) {
	w.Helper()
	tx, err := w.db.Begin()
	if err != nil {
		w.Fatal(err)
	}
	for i := range many {
		if _, err := tx.Exec(`INSERT INTO jobs (id, namespace, status, priority, max_attempts, created_at, started_at, finished_at, spec, size, callback_left, callback_due)
			SELECT ?, ?, 'cancelled', 0, 1, ?, ?, ?, CAST('{}' AS BLOB), `+columns, fmt.Sprintf("job_%s%d", n, i), n, sandbox.Now().String(), sandbox.Now().String(), fmt.Sprintf("2030-01-01T00:%02d:%02d.000Z", i/60, i%60)); err != nil {
			w.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		w.Fatal(err)
	}
}

func (w *world) left() (n int) {
	w.Helper()
	if err := w.db.QueryRow(`SELECT count(*) FROM jobs`).Scan(&n); err != nil {
		w.Fatal(err)
	}
	return n
}

func TestJobsWithoutResultsAreBoundedToo(t *testing.T) {
	w := openWorld(t, func(o *Options) { o.KeepBytes = 20 << 10 })
	for range 30 {
		if _, err := w.Cancel(t.Context(), "a", w.submit(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.forget(t.Context(), time.Now().Add(-time.Hour)); err != nil || w.left() != 10 { // half of the bytes, a kilobyte each
		t.Errorf("%d are left, %v", w.left(), err)
	}
	w.rows("b", 30, "1024, 3, 0")
	if err := w.forget(t.Context(), time.Unix(0, 0)); err != nil || w.left() != 20 {
		t.Errorf("of those whose callbacks nobody heard %d are left, %v", w.left(), err)
	}
}

func TestManyOldJobsGoByAndBy(t *testing.T) {
	w := openWorld(t, nil)
	w.rows("a", 2*trimAtOnce+1, "0, 0, 0")
	if err := w.forget(t.Context(), time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil || w.left() != 0 {
		t.Errorf("%d are left, %v", w.left(), err)
	}
}

func TestCallbacksOfEachNamespaceAreFound(t *testing.T) {
	w := openWorld(t, nil)
	now := time.Now().UnixMilli()
	w.rows("late", 100, fmt.Sprint("0, 3, ", now-1000))
	w.rows("waits", 100, fmt.Sprint("0, 3, ", now+60_000))
	w.rows("heard", 100, fmt.Sprint("0, 0, ", now-1000))
	w.rows("other", 2, fmt.Sprint("0, 3, ", now-1000))
	w.rows("clock", 2, fmt.Sprint("0, 3, ", now+24*3600_000)) // that was set back
	due, err := w.dueCallbacks(t.Context())
	found := map[string]int{}
	for _, c := range due {
		found[c.namespace]++
	}
	if want := map[string]int{"late": callbacksAtOnce, "other": 2, "clock": 2}; err != nil || !maps.Equal(found, want) {
		t.Errorf("%v, %v", found, err)
	}
	var plan string
	for _, query := range []string{`SELECT min(namespace) FROM jobs WHERE callback_left > 0 AND namespace > 'a'`, `SELECT id FROM jobs WHERE callback_left > 0 AND namespace = 'a' AND callback_due < 5 ORDER BY callback_due, seq LIMIT 4`} {
		if err := w.db.QueryRow(`EXPLAIN QUERY PLAN `+query).Scan(new(int), new(int), new(int), &plan); err != nil || !strings.Contains(plan, "INDEX jobs_to_tell (namespace") {
			t.Errorf("%s: %s, %v", query, plan, err)
		}
	}
}
