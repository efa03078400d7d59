package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"outpost.run/outpost/sandbox"
)

// forgetOld removes jobs whose time is over, with their files, until the queue closes.
func (q *Queue) forgetOld() {
	for {
		if err := q.forget(q.ctx, time.Now().Add(-q.o.Keep)); err != nil && q.ctx.Err() == nil {
			q.o.Log.Error("old jobs could not be removed", "error", err)
		}
		select {
		case <-q.ctx.Done():
			return
		case <-time.After(time.Minute):
		}
	}
}

func (q *Queue) forget(ctx context.Context, before time.Time) error {
	for gone := int64(trimAtOnce); gone == trimAtOnce; {
		r, err := q.db.ExecContext(ctx, `DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE finished_at < ? LIMIT ?)`, sandbox.At(before).String(), trimAtOnce)
		if err != nil {
			return err
		}
		gone, _ = r.RowsAffected()
	}
	kept, err := q.kept(ctx)
	if err != nil {
		return err
	}
	all := int64(0)
	for namespace, bytes := range kept {
		gone, err := q.trim(ctx, namespace, bytes-q.o.KeepBytes/2)
		if err != nil {
			return err
		}
		all += bytes - gone
	}
	if _, err := q.trim(ctx, "", all-q.o.KeepBytes); err != nil {
		return err
	}
	return q.sweep(ctx)
}

// kept are the bytes of results that may go, by namespace. Those of jobs that run may not: they are of `jobs.concurrency` jobs at most.
func (q *Queue) kept(ctx context.Context) (map[string]int64, error) {
	rows, err := q.lists.QueryContext(ctx, `SELECT namespace, sum(bytes) FROM (
			SELECT namespace, size AS bytes FROM jobs WHERE finished_at IS NOT NULL
			UNION ALL SELECT namespace, result_size FROM jobs WHERE finished_at IS NULL AND result_size > 0 AND status = 'queued'
		) GROUP BY namespace`)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err says it
	kept := map[string]int64{}
	for rows.Next() {
		var namespace string
		var bytes int64
		if err := rows.Scan(&namespace, &bytes); err != nil {
			return nil, err
		}
		kept[namespace] = bytes
	}
	return kept, rows.Err()
}

const (
	noResult = `UPDATE jobs SET result = NULL, in_file = 0, result_of = 0, result_size = 0`
	these    = ` AND seq IN (SELECT value FROM json_each(?))`
)

// trim takes results of a namespace, or of all where it is "", until so many bytes are gone: first those that jobs have which wait for
// another attempt, then the oldest jobs with theirs; a job whose callback was not heard loses its result alone, unless those are too many
// themselves. It says how much went.
func (q *Queue) trim(ctx context.Context, namespace string, excess int64) (gone int64, err error) {
	for _, kind := range []struct {
		oldest string
		steps  []string
	}{
		{`SELECT seq, result_size FROM jobs WHERE finished_at IS NULL AND result_size > 0 AND status = 'queued' AND ? IN ('', namespace) ORDER BY started_at`,
			[]string{noResult + ` WHERE status = 'queued'` + these}},
		{`SELECT seq, CASE WHEN callback_left > 0 THEN result_size ELSE size END FROM jobs
			WHERE finished_at IS NOT NULL AND (callback_left = 0 OR result_size > 0) AND ? IN ('', namespace) ORDER BY finished_at`,
			[]string{noResult + `, size = max(0, size - result_size) WHERE callback_left > 0` + these, `DELETE FROM jobs WHERE callback_left = 0` + these}},
		{`SELECT seq, size FROM jobs WHERE finished_at IS NOT NULL AND ? IN ('', namespace) ORDER BY finished_at`,
			[]string{`DELETE FROM jobs WHERE finished_at IS NOT NULL` + these}},
	} {
		if gone >= excess {
			break
		}
		rows, bytes, err := q.upTo(ctx, excess-gone, kind.oldest, namespace)
		if err != nil {
			return gone, err
		}
		gone += bytes
		for some := range slices.Chunk(rows, trimAtOnce) {
			list, err := json.Marshal(some)
			if err != nil {
				return gone, err
			}
			for _, step := range kind.steps {
				if _, err := q.db.ExecContext(ctx, step, string(list)); err != nil {
					return gone, err
				}
			}
		}
	}
	return gone, nil
}

// trimAtOnce is how many rows go by one commit: who submits waits for it.
const trimAtOnce = 1000

// upTo reads rows and their bytes until there are as many bytes as are asked for. What is written meanwhile waits for no reader.
func (q *Queue) upTo(ctx context.Context, excess int64, query, namespace string) (all []int64, bytes int64, err error) {
	rows, err := q.lists.QueryContext(ctx, query, namespace)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close() //nolint:errcheck // Err says it
	for bytes < excess && rows.Next() {
		var seq, size int64
		if err := rows.Scan(&seq, &size); err != nil {
			return nil, 0, err
		}
		all, bytes = append(all, seq), bytes+size
	}
	return all, bytes, rows.Err()
}

// sweep removes files that no row speaks of, but for that of an attempt which runs: it is written before the row is.
func (q *Queue) sweep(ctx context.Context) error {
	return q.eachFile(func(name, id string, attempt int) error {
		var there bool
		err := q.lists.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ? AND (in_file AND result_of = ? OR status = 'running' AND attempts = ?))`, id, attempt, attempt).Scan(&there)
		if err != nil || there {
			return err
		}
		if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}

// adopt renames files of results that were named by their jobs alone, and counts them.
func (q *Queue) adopt(ctx context.Context) error {
	return q.eachFile(func(name, id string, attempt int) error {
		if filepath.Base(name) != id+".json" {
			return nil
		}
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		err = q.db.QueryRowContext(ctx, `UPDATE jobs SET result_size = ?, size = CASE WHEN finished_at IS NULL THEN size ELSE ? END WHERE id = ? AND in_file RETURNING result_of`, st.Size(), st.Size(), id).Scan(&attempt)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.Rename(name, q.file(id, attempt))
	})
}

// eachFile calls f for the files of results, and their drafts; attempt is 0 where the name has none.
func (q *Queue) eachFile(f func(name, id string, attempt int) error) error {
	names, err := filepath.Glob(filepath.Join(q.o.Dir, sandbox.JobPrefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		parts := strings.Split(filepath.Base(name), ".")
		attempt := 0
		if len(parts) > 1 {
			attempt, _ = strconv.Atoi(parts[1])
		}
		if err := f(name, parts[0], attempt); err != nil {
			return err
		}
	}
	return nil
}
