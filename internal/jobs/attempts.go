package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// backoff is how long a job waits before its next attempt.
type backoff struct {
	first, most time.Duration // after a failed attempt; doubled each time, and by a fifth more or less
	busy        time.Duration // where there was no room; doubled each time, to busiest
	busiest     time.Duration
}

var usualBackoff = backoff{first: time.Second, most: 5 * time.Minute, busy: 500 * time.Millisecond, busiest: time.Minute}

// maxStalled is how often in a row a job may find no room: about a day.
const maxStalled = 24 * 60

func (b backoff) after(failed int) time.Duration { return grown(b.first, b.most, failed) }

func (b backoff) afterStall(stalled int) time.Duration { return grown(b.busy, b.busiest, stalled) }

// grown is first, doubled with each time after the first, but no more than most; a fifth more or less.
func grown(first, most time.Duration, times int) time.Duration {
	if times < 20 {
		most = min(most, first<<(times-1))
	}
	return time.Duration(float64(most) * (0.8 + 0.4*rand.Float64()))
}

// notDue are the first and last moment, in Unix milliseconds, between which something that waits lies: what is further off than any
// wait is long was noted by a clock that was set back since.
func notDue() []any {
	now := time.Now()
	return []any{now.UnixMilli() + 1, now.Add(2 * usualBackoff.most).UnixMilli()}
}

// maxCut is how many attempts may be cut off by the server's end: a job that ends servers does not do so for ever.
const maxCut = 3

// recover takes up what a former run of the server left.
func (q *Queue) recover(ctx context.Context) error {
	tx, err := q.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // nil after Commit
	lost, err := json.Marshal(sandbox.ErrorBody{Code: sandbox.Lost, Message: "the server ended during each of its attempts"})
	if err != nil {
		return err
	}
	for _, step := range []struct {
		says, sql string
		values    []any
	}{
		{"jobs that the server's end cut off", `UPDATE jobs SET cut = cut + 1 WHERE status = 'running'`, nil},
		{"jobs that the server's end cut off too often", `UPDATE jobs SET status = 'failed', ` + ends + `, error = ?, size = result_size + ` + rowCost + ` WHERE status = 'running' AND cut > ?`, []any{sandbox.Now().String(), lost, maxCut}},
		{"jobs that wait", `UPDATE jobs SET status = 'queued', due = 0 WHERE status IN ('running', 'queued')`, nil},
	} {
		r, err := tx.ExecContext(ctx, step.sql, step.values...)
		if err != nil {
			return err
		}
		if n, _ := r.RowsAffected(); n > 0 {
			q.o.Log.Info(step.says, "jobs", n)
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if err := q.adopt(ctx); err != nil {
		return err
	}
	return q.sweep(ctx)
}

// look is how often the dispatcher looks for what has become due.
const look = 250 * time.Millisecond

// dispatch hands attempts out until the queue closes.
func (q *Queue) dispatch() {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if err := q.ripen(q.ctx); err != nil && q.ctx.Err() == nil {
			q.o.Log.Error("jobs that are due could not be found", "error", err)
		}
		for more := true; more; {
			var err error
			if more, err = q.handOut(q.ctx); err != nil && q.ctx.Err() == nil {
				q.o.Log.Error("a job could not be handed out", "error", err)
			}
		}
		select {
		case <-q.wake:
		case <-tick.C:
		case <-q.ctx.Done():
			return
		}
	}
}

// handOut hands out the next job; false where there is none, or no room.
func (q *Queue) handOut(ctx context.Context) (bool, error) {
	q.mu.Lock()
	full := q.paused || q.all >= q.o.Concurrency
	q.mu.Unlock()
	if full {
		return false, nil
	}
	waiting, err := q.waiting(ctx)
	if err != nil {
		return false, err
	}
	namespace := q.next(waiting)
	if namespace == "" {
		return false, nil
	}
	a, err := q.take(ctx, namespace)
	if err != nil {
		q.giveBack(namespace)
		if errors.Is(err, sql.ErrNoRows) { // it was cancelled
			return true, nil
		}
		return false, err
	}
	if _, err := q.river.Insert(ctx, args{ID: a.id}, nil); err != nil {
		q.settle(a, service.JobOutcome{Err: sandbox.Errorf(sandbox.Capacity, err, "the attempt could not be handed out")})
		return false, err
	}
	return true, nil
}

// take makes the namespace's next job a running one. Who cancels it finds the attempt from the first moment on.
func (q *Queue) take(ctx context.Context, namespace string) (*attempt, error) {
	a := &attempt{namespace: namespace, done: make(chan struct{})}
	err := q.db.QueryRowContext(ctx, `SELECT id FROM jobs WHERE namespace = ? AND status = 'queued' AND due = 0 ORDER BY priority DESC, seq LIMIT 1`, namespace).Scan(&a.id)
	if err != nil {
		return nil, err
	}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	q.mu.Lock()
	q.running[a.id] = a
	q.mu.Unlock()
	h := &a.history
	err = q.db.QueryRowContext(context.WithoutCancel(ctx), `UPDATE jobs SET status = 'running', attempts = attempts + 1, started_at = ? WHERE id = ? AND status = 'queued' RETURNING spec, attempts, cut, stalled, max_attempts`,
		sandbox.Now().String(), a.id).Scan(&a.spec, &h.tries, &h.cut, &h.stalled, &h.most)
	if err != nil {
		q.leave(a)
		return nil, err
	}
	return a, nil
}

// leave says that an attempt is over.
func (q *Queue) leave(a *attempt) {
	q.mu.Lock()
	delete(q.running, a.id)
	q.mu.Unlock()
	a.cancel()
	close(a.done)
}

// insistEvery is how often what must be noted is tried.
const insistEvery = time.Second

// insist does what must be noted of a job, once the disk lets it; the queue's end ends it, and the next start repeats the attempt.
func (q *Queue) insist(id string, note func() error) {
	for {
		err := note()
		if err == nil {
			return
		}
		q.o.Log.Error("what became of a job could not be noted", "job", id, "error", err)
		select {
		case <-time.After(insistEvery):
		case <-q.ctx.Done():
			return
		}
	}
}

// ripen marks what has become due, so that the index of what may begin has nothing else.
func (q *Queue) ripen(ctx context.Context) error {
	var any bool
	if err := q.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM jobs WHERE due > 0 AND NOT due BETWEEN ? AND ?)`, notDue()...).Scan(&any); err != nil || !any {
		return err
	}
	_, err := q.db.ExecContext(ctx, `UPDATE jobs SET due = 0 WHERE due > 0 AND NOT due BETWEEN ? AND ?`, notDue()...)
	return err
}

// waiting are the namespaces that have a job which is due.
func (q *Queue) waiting(ctx context.Context) ([]string, error) {
	return q.namespaces(ctx, q.db, `status = 'queued' AND due = 0`)
}

// namespaces are those that have a job of some kind, of which there is an index that begins with the namespace.
func (q *Queue) namespaces(ctx context.Context, db *sql.DB, kind string) (all []string, err error) {
	// A skip scan: one step of the index for each namespace, however many jobs it has.
	rows, err := db.QueryContext(ctx, `
		WITH RECURSIVE spaces(namespace) AS (
			SELECT min(namespace) FROM jobs WHERE `+kind+`
			UNION ALL
			SELECT (SELECT min(namespace) FROM jobs WHERE `+kind+` AND namespace > spaces.namespace) FROM spaces WHERE spaces.namespace IS NOT NULL
		)
		SELECT namespace FROM spaces WHERE namespace IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err says it
	for rows.Next() {
		var namespace string
		if err := rows.Scan(&namespace); err != nil {
			return nil, err
		}
		all = append(all, namespace)
	}
	return all, rows.Err()
}

// next chooses the namespace whose turn it is, and counts an attempt of it; "" where none may have another.
func (q *Queue) next(waiting []string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, namespace := range waiting {
		if !slices.Contains(q.turn, namespace) {
			q.turn = append(q.turn, namespace)
		}
	}
	q.turn = slices.DeleteFunc(q.turn, func(namespace string) bool { return !slices.Contains(waiting, namespace) })
	for i, namespace := range q.turn {
		if q.out[namespace] < q.o.PerNamespace {
			q.turn = append(slices.Delete(q.turn, i, i+1), namespace)
			q.out[namespace]++
			q.all++
			return namespace
		}
	}
	return ""
}

func (q *Queue) giveBack(namespace string) {
	q.mu.Lock()
	if q.out[namespace]--; q.out[namespace] <= 0 {
		delete(q.out, namespace)
	}
	q.all--
	q.mu.Unlock()
	q.stir()
}

// attempt runs a job once. It never fails for River: what becomes of the job is noted in its own row.
func (q *Queue) attempt(id string) {
	q.mu.Lock()
	a := q.running[id]
	if a == nil || a.begun { // River has it twice, or the queue closes
		q.mu.Unlock()
		return
	}
	a.begun = true
	cancelled := a.cancelled
	q.mu.Unlock()
	var j service.JobSpec
	var o service.JobOutcome
	if err := json.Unmarshal(a.spec, &j); err != nil {
		o.Err = internal(err)
	} else if !cancelled {
		j.Attempt = a.history.tries
		o = q.runSafely(a.ctx, j)
	}
	q.settle(a, o)
}

// runSafely keeps a bug's panic from taking the attempt's place for good: River would swallow it.
func (q *Queue) runSafely(ctx context.Context, j service.JobSpec) (o service.JobOutcome) {
	defer func() {
		if p := recover(); p != nil {
			q.o.Log.Error("an attempt at a job panicked", "job", j.ID, "panic", p, "stack", string(debug.Stack()))
			o = service.JobOutcome{Err: sandbox.Errorf(sandbox.Internal, nil, "the server failed; its log says more")}
		}
	}()
	return q.run(ctx, j)
}

// takeBack puts back what was handed out and will not begin, as River has stopped: else the next start would take it for cut off.
func (q *Queue) takeBack() {
	var left []*attempt
	q.mu.Lock()
	for _, a := range q.running {
		if !a.begun {
			a.begun = true
			left = append(left, a)
		}
	}
	q.mu.Unlock()
	for _, a := range left {
		q.settle(a, service.JobOutcome{Err: sandbox.Errorf(sandbox.ShuttingDown, nil, "the server ended before it began")})
	}
}

// settle notes what became of an attempt, which is over then.
func (q *Queue) settle(a *attempt, o service.JobOutcome) {
	q.insist(a.id, func() error {
		q.mu.Lock()
		cancelled := a.cancelled
		q.mu.Unlock()
		v := judge(o, cancelled, a.history)
		err := q.note(context.WithoutCancel(a.ctx), a, v, o)
		if err == nil {
			q.o.Log.Info("an attempt at a job ended", "job", a.id, "namespace", a.namespace, "attempt", a.history.tries, "status", v.status, "code", sandbox.CodeOf(o.Err))
		}
		return err
	})
	q.leave(a)
	q.giveBack(a.namespace)
}

// history is what came of a job until now.
type history struct {
	tries   int // attempts, the last one included
	cut     int // of them, cut off by the end of their machines
	stalled int // tries since the last attempt that found no room
	most    int // attempts that may fail
}

// verdict is what becomes of a job after an attempt.
type verdict struct {
	status sandbox.JobStatus
	// Where another attempt follows, what the last one counts as:
	cut     int // 1: it was cut off by the end of its machine, or the server's
	unmade  int // 1: it did not begin
	stalled int // it did not begin, as so often since the last that did
	failed  int // it failed, as so many did by now
}

// judge says what becomes of a job after an attempt.
func judge(o service.JobOutcome, cancelled bool, h history) verdict {
	switch code := sandbox.CodeOf(o.Err); {
	case cancelled:
		return verdict{status: sandbox.JobCancelled}
	case o.Err == nil && o.Result.TerminationReason == sandbox.Cancelled: // its sandbox was deleted, or the exec cancelled
		return verdict{status: sandbox.JobCancelled}
	case o.Err == nil && o.Result.ExitCode == 0 && o.Result.TerminationReason == sandbox.Exited:
		return verdict{status: sandbox.JobSucceeded}
	case code == sandbox.Capacity, code == sandbox.QuotaExceeded, code == sandbox.ImagePreparing, code == sandbox.ShuttingDown:
		if h.stalled >= maxStalled {
			return verdict{status: sandbox.JobFailed}
		}
		return verdict{status: sandbox.JobQueued, unmade: 1, stalled: h.stalled + 1}
	case code == sandbox.Lost && h.cut < maxCut:
		return verdict{status: sandbox.JobQueued, cut: 1}
	case h.tries-h.cut < h.most && (o.Err == nil || code == sandbox.Lost || code == sandbox.Internal):
		return verdict{status: sandbox.JobQueued, failed: h.tries - h.cut}
	case o.Err == nil && o.Result.TimedOut:
		return verdict{status: sandbox.JobTimedOut}
	}
	return verdict{status: sandbox.JobFailed}
}

// note writes what became of a job. The result stays that of the last attempt that had one.
func (q *Queue) note(ctx context.Context, a *attempt, v verdict, o service.JobOutcome) error {
	var result any
	var text []byte
	size, inFile := 0, false
	if o.Result != nil {
		b, err := json.Marshal(o.Result)
		if err != nil {
			return err
		}
		if size, result = len(b), b; len(b) > inRow {
			if err := writeThrough(q.file(a.id, a.history.tries), b); err != nil {
				return err
			}
			result, inFile = nil, true
		}
	}
	if o.Err != nil {
		var err error
		if text, err = json.Marshal(service.BodyOf(o.Err)); err != nil {
			return err
		}
	}
	have := ``
	values := []any{text}
	if o.Result != nil {
		have, values = `, result = ?, in_file = ?, result_size = ?, result_of = attempts, exit_code = ?`, append(values, result, inFile, size, o.Result.ExitCode)
	}
	if v.status != sandbox.JobQueued {
		if o.Result != nil {
			have, values = have+`, size = ? + `+rowCost, append(values, size+len(text))
		} else {
			have, values = have+`, size = result_size + ? + `+rowCost, append(values, len(text))
		}
		_, err := q.db.ExecContext(ctx, `UPDATE jobs SET error = ?`+have+`, status = ?, `+ends+` WHERE id = ?`, append(values, v.status, sandbox.Now().String(), a.id)...)
		if err == nil {
			q.o.Watcher.JobEnds(v.status)
		}
		q.stir()
		return err
	}
	wait := q.back.busy
	switch {
	case v.failed > 0:
		wait = q.back.after(v.failed)
	case v.stalled > 0:
		wait = q.back.afterStall(v.stalled)
	}
	_, err := q.db.ExecContext(ctx, `UPDATE jobs SET error = ?`+have+`, status = 'queued', cut = cut + ?, attempts = attempts - ?, stalled = ?, due = ? WHERE id = ?`,
		append(values, v.cut, v.unmade, v.stalled, time.Now().Add(wait).UnixMilli(), a.id)...)
	return err
}

// writeThrough writes a file that is there whole, and on the disk, when it returns.
func writeThrough(name string, b []byte) error {
	draft := name + ".draft"
	f, err := os.OpenFile(draft, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(draft, name)
	}
	return err
}
