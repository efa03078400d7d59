package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// inRow is how large a result may be that has no file of its own, in bytes.
const inRow = 64 << 10

// Submit implements service.Queue.
func (q *Queue) Submit(ctx context.Context, j service.JobSpec) (sandbox.Job, error) {
	spec, err := json.Marshal(j)
	if err != nil {
		return sandbox.Job{}, internal(err)
	}
	tx, err := q.db.BeginTx(ctx, nil)
	if err != nil {
		return sandbox.Job{}, internal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nil after Commit
	if err := q.room(ctx, tx, j.Namespace); err != nil {
		return sandbox.Job{}, err
	}
	job := sandbox.Job{
		ID: j.ID, Namespace: j.Namespace, SandboxID: j.Request.SandboxID, Command: j.Command, Status: sandbox.JobQueued, Priority: j.Priority, MaxAttempts: j.MaxAttempts, CreatedAt: sandbox.Now(),
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO jobs (id, namespace, sandbox_id, command, status, priority, max_attempts, created_at, spec, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		job.ID, job.Namespace, job.SandboxID, job.Command, job.Status, job.Priority, job.MaxAttempts, job.CreatedAt.String(), spec, len(spec))
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return sandbox.Job{}, internal(err)
	}
	q.mu.Lock()
	for _, of := range []string{j.Namespace, ""} {
		if w := q.wait[of]; w != nil {
			w.jobs++
			w.bytes += int64(len(spec))
		}
	}
	q.mu.Unlock()
	q.stir()
	return job, nil
}

// amount is how much waits.
type amount struct {
	jobs    int
	bytes   int64
	counted time.Time
}

func (a amount) within(jobs int, bytes int64) bool { return a.jobs < jobs && a.bytes < bytes }

// allShare is how much more may wait of all namespaces than of one, in bytes.
const allShare = 8

// room refuses what the queue does not hold.
func (q *Queue) room(ctx context.Context, tx *sql.Tx, namespace string) error {
	mine, err := q.waits(ctx, tx, namespace, q.o.MaxQueued, q.o.MaxQueuedBytes)
	var all amount
	if err == nil {
		all, err = q.waits(ctx, tx, "", q.o.MaxQueuedInAll, allShare*q.o.MaxQueuedBytes)
	}
	var full *sandbox.Error
	switch {
	case err != nil:
		return internal(err)
	case mine.jobs >= q.o.MaxQueued:
		full = sandbox.Errorf(sandbox.QuotaExceeded, nil, "the namespace has %d jobs that wait already (jobs.max_queued); wait for some to begin", mine.jobs)
	case mine.bytes >= q.o.MaxQueuedBytes:
		full = sandbox.Errorf(sandbox.QuotaExceeded, nil, "the jobs of the namespace that wait have %d MiB already (jobs.max_queued_mb); wait for some to begin", mine.bytes>>20)
	case all.jobs >= q.o.MaxQueuedInAll, all.bytes >= allShare*q.o.MaxQueuedBytes:
		full = sandbox.Errorf(sandbox.Capacity, nil, "the queue is full; try again in a moment")
	default:
		return nil
	}
	full.RetryAfterSecs = 5
	return full
}

// countEvery is how old the number of jobs that wait may be: to count a million takes a while.
const countEvery = time.Second

// waits is about how much waits of a namespace, "" for all: where that would be too much it is counted anew, by which only jobs
// that came back meanwhile are left out.
func (q *Queue) waits(ctx context.Context, tx *sql.Tx, namespace string, jobs int, bytes int64) (amount, error) {
	q.mu.Lock()
	known := q.wait[namespace]
	if known != nil && time.Since(known.counted) < countEvery && known.within(jobs, bytes) {
		defer q.mu.Unlock()
		return *known, nil
	}
	q.mu.Unlock()
	now := amount{counted: time.Now()}
	query := `SELECT count(*), coalesce(sum(size), 0) FROM jobs WHERE status = 'queued'`
	var of []any
	if namespace != "" {
		query, of = query+` AND namespace = ?`, []any{namespace}
	}
	if err := tx.QueryRowContext(ctx, query, of...).Scan(&now.jobs, &now.bytes); err != nil {
		return amount{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, a := range q.wait { // so that nothing is kept of who submits no more
		if now.counted.Sub(a.counted) > countEvery {
			delete(q.wait, name)
		}
	}
	q.wait[namespace] = &now
	return now, nil
}

const columns = `id, namespace, sandbox_id, command, status, attempts, max_attempts, priority, created_at, started_at, finished_at, exit_code, callback, error`

type scanner interface{ Scan(into ...any) error }

// read takes a row of columns, and then of more.
func read(row scanner, more ...any) (j sandbox.Job, err error) {
	var created string
	var started, finished sql.NullString
	var text []byte
	into := []any{&j.ID, &j.Namespace, &j.SandboxID, &j.Command, &j.Status, &j.Attempts, &j.MaxAttempts, &j.Priority, &created, &started, &finished, &j.ExitCode, &j.Callback, &text}
	if err := row.Scan(append(into, more...)...); err != nil {
		return j, err
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &j.Error); err != nil {
			return j, err
		}
	}
	j.CreatedAt, err = parse(created)
	for at, text := range map[**sandbox.Time]sql.NullString{&j.StartedAt: started, &j.FinishedAt: finished} {
		if text.Valid && err == nil {
			var t sandbox.Time
			t, err = parse(text.String)
			*at = &t
		}
	}
	return j, err
}

func parse(text string) (sandbox.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	return sandbox.At(t), err
}

// Job implements service.Queue.
func (q *Queue) Job(ctx context.Context, namespace, id string) (sandbox.Job, service.JobSpec, error) {
	for lost := 0; ; {
		j, spec, resultOf, err := q.readJob(ctx, namespace, id)
		switch {
		case !errors.Is(err, errNoFile):
			return j, spec, err
		case lost == resultOf: // nothing replaced it
			q.o.Log.Error("the file of a job's result is not there", "job", id, "attempt", resultOf)
			return j, spec, nil
		}
		lost = resultOf
	}
}

// errNoFile says that the file which a row speaks of is not there: the row may have changed meanwhile.
var errNoFile = errors.New("the file of the result is not there")

func (q *Queue) readJob(ctx context.Context, namespace, id string) (j sandbox.Job, spec service.JobSpec, resultOf int, err error) {
	var text, result []byte
	var inFile bool
	row := q.gets.QueryRowContext(ctx, `SELECT `+columns+`, spec, result, in_file, result_of FROM jobs WHERE id = ? AND namespace = ?`, id, namespace)
	j, err = read(row, &text, &result, &inFile, &resultOf)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return j, spec, 0, noJob()
	case err != nil:
		return j, spec, 0, internal(err)
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return j, spec, 0, internal(err)
	}
	if inFile {
		if result, err = os.ReadFile(q.file(id, resultOf)); errors.Is(err, os.ErrNotExist) {
			return j, spec, resultOf, errNoFile
		} else if err != nil {
			return j, spec, 0, internal(err)
		}
	}
	if len(result) > 0 {
		err = json.Unmarshal(result, &j.Result)
	}
	return j, spec, resultOf, internal(err)
}

// file is where a large result of an attempt is. It is written before the row says so, which may have that of an earlier attempt still.
func (q *Queue) file(id string, attempt int) string {
	return filepath.Join(q.o.Dir, fmt.Sprintf("%s.%d.json", id, attempt))
}

// Jobs implements service.Queue.
func (q *Queue) Jobs(ctx context.Context, x service.JobQuery) ([]sandbox.Job, int, error) {
	sort := x.Sort
	if sort == "" {
		sort = "created_at"
	}
	if !slices.Contains(service.JobSorts, sort) {
		return nil, 0, sandbox.Errorf(sandbox.Internal, nil, "jobs can't be sorted by %q", sort)
	}
	direction := "ASC"
	if x.Descending {
		direction = "DESC"
	}
	where, values := ` FROM jobs WHERE namespace = ?`, []any{x.Namespace}
	for column, value := range map[string]string{"status": x.Status, "sandbox_id": x.SandboxID} {
		if value != "" {
			where, values = where+" AND "+column+" = ?", append(values, value)
		}
	}
	var total int
	if err := q.lists.QueryRowContext(ctx, `SELECT count(*)`+where, values...).Scan(&total); err != nil {
		return nil, 0, internal(err)
	}
	order := fmt.Sprintf(" ORDER BY %s %s, seq %s LIMIT %d OFFSET %d", sort, direction, direction, x.PerPage, (x.Page-1)*x.PerPage)
	rows, err := q.lists.QueryContext(ctx, `SELECT `+columns+where+order, values...)
	if err != nil {
		return nil, 0, internal(err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	var all []sandbox.Job
	for rows.Next() {
		j, err := read(rows)
		if err != nil {
			return nil, 0, internal(err)
		}
		all = append(all, j)
	}
	return all, total, internal(rows.Err())
}

// State implements service.Queue.
func (q *Queue) State(ctx context.Context, namespace, id string) (status sandbox.JobStatus, resultOf int, err error) {
	err = q.gets.QueryRowContext(ctx, `SELECT status, result_of FROM jobs WHERE id = ? AND namespace = ?`, id, namespace).Scan(&status, &resultOf)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, noJob()
	}
	return status, resultOf, internal(err)
}

// Load implements service.Queue.
func (q *Queue) Load(ctx context.Context) (queued, running int, err error) {
	q.mu.Lock()
	running = len(q.running)
	q.mu.Unlock()
	err = q.lists.QueryRowContext(ctx, `SELECT count(*) FROM jobs WHERE status = 'queued'`).Scan(&queued)
	return queued, running, internal(err)
}

// Cancel implements service.Queue.
func (q *Queue) Cancel(ctx context.Context, namespace, id string) (sandbox.Job, error) {
	for try := 0; ; try++ {
		r, err := q.db.ExecContext(ctx, `UPDATE jobs SET status = ?, `+ends+`, callback_due = 0, size = result_size + `+rowCost+` WHERE id = ? AND namespace = ? AND status = 'queued'`,
			sandbox.JobCancelled, sandbox.Now().String(), id, namespace)
		if err != nil {
			return sandbox.Job{}, internal(err)
		}
		n, _ := r.RowsAffected()
		if n > 0 {
			q.o.Watcher.JobEnds(sandbox.JobCancelled)
		}
		status, _, err := q.State(ctx, namespace, id)
		switch {
		case err != nil:
			return sandbox.Job{}, err
		case try == 0 && n == 0 && status.Ended():
			return sandbox.Job{}, sandbox.Errorf(sandbox.AlreadyFinished, nil, "the job has ended already: %s", status)
		case status.Ended() || try == 2 || !q.cancelRunning(ctx, id): // else an attempt that was judged before may have put it back
			q.stir()
			j, _, err := q.Job(ctx, namespace, id)
			return j, err
		}
	}
}

// ends is what becomes of a job that ends at a time; SQL. Of what was submitted only that stays which its end is told by.
var ends = `finished_at = ?, stalled = 0, callback_left = ` + triesToTell + `, callback = CASE WHEN ` + triesToTell + ` > 0 THEN 'waiting' END, spec = CAST(json_object('ID', id, 'Namespace', namespace,
	'CallbackURL', json_extract(CAST(spec AS TEXT), '$.CallbackURL'),
	'Request', json_object('output_encoding', json_extract(CAST(spec AS TEXT), '$.Request.output_encoding'))) AS BLOB)`

// rowCost is about what a job that has ended takes beside its result, in bytes; SQL.
const rowCost = `1024 + coalesce(length(error), 0) + coalesce(length(json_extract(CAST(spec AS TEXT), '$.CallbackURL')), 0)`

// triesToTell is how often a job's end is told of until it is heard, where it is to be told at all; SQL.
var triesToTell = fmt.Sprintf(`CASE WHEN json_extract(CAST(spec AS TEXT), '$.CallbackURL') <> '' THEN %d ELSE 0 END`, callbackTries)

const cancelPatience = 2 * time.Second

// cancelRunning ends the attempt that runs, and says whether it is over.
func (q *Queue) cancelRunning(ctx context.Context, id string) bool {
	q.mu.Lock()
	a := q.running[id]
	if a != nil {
		a.cancelled = true
		a.cancel()
	}
	q.mu.Unlock()
	if a == nil {
		return true
	}
	select {
	case <-a.done:
		return true
	case <-ctx.Done():
	case <-time.After(cancelPatience):
	}
	return false
}
