package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

func (s *Store) writer(mode sandbox.Mode) *sql.DB {
	if mode == sandbox.Stateful {
		return s.promises
	}
	return s.quick
}

// PutSandbox inserts or replaces the record with that id.
func (s *Store) PutSandbox(ctx context.Context, r sandbox.Sandbox, m service.Moments) error {
	record, err := json.Marshal(r)
	if err != nil {
		return internal(err)
	}
	labels, err := json.Marshal(r.Labels)
	if err != nil {
		return internal(err)
	}
	_, err = s.writer(r.Mode).ExecContext(ctx, `
		INSERT INTO sandboxes (id, namespace, name, language, mode, status, labels, created_at, updated_at, record, made, used)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, status = excluded.status, labels = excluded.labels,
			updated_at = excluded.updated_at, record = excluded.record, made = excluded.made, used = excluded.used`,
		r.ID, r.Namespace, r.Name, r.Language, string(r.Mode), string(r.Status), string(labels), r.CreatedAt.String(),
		r.UpdatedAt.String(), string(record), m.Made.UnixMilli(), m.Used.UnixMilli())
	return internal(err)
}

// DeleteSandbox is nil for what is gone.
func (s *Store) DeleteSandbox(ctx context.Context, id string, mode sandbox.Mode) error {
	_, err := s.writer(mode).ExecContext(ctx, `DELETE FROM sandboxes WHERE id = ?`, id)
	return internal(err)
}

// AllSandboxes are those of every namespace, the oldest first.
func (s *Store) AllSandboxes(ctx context.Context) ([]sandbox.Sandbox, error) {
	return s.sandboxes(ctx, `SELECT record FROM sandboxes ORDER BY created_at, seq`)
}

// ListSandboxes gives one page and how many match in all.
func (s *Store) ListSandboxes(ctx context.Context, q service.SandboxQuery) ([]sandbox.Sandbox, int, error) {
	tail, err := order(q.Paging, service.SandboxSorts)
	if err != nil {
		return nil, 0, err
	}
	where, args := ` FROM sandboxes WHERE namespace = ?`, []any{q.Namespace}
	for _, f := range []struct{ column, value string }{{"status", q.Status}, {"language", q.Language}, {"mode", q.Mode}} {
		if f.value != "" {
			where, args = where+" AND "+f.column+" = ?", append(args, f.value)
		}
	}
	if q.LabelKey != "" {
		where += ` AND EXISTS (SELECT 1 FROM json_each(labels) AS l WHERE l.key = ? AND l.value = ?)`
		args = append(args, q.LabelKey, q.LabelValue)
	}
	var total int
	if err := s.readers.QueryRowContext(ctx, `SELECT count(*)`+where, args...).Scan(&total); err != nil {
		return nil, 0, internal(err)
	}
	rows, err := s.sandboxes(ctx, `SELECT record`+where+tail, args...)
	return rows, total, err
}

func (s *Store) sandboxes(ctx context.Context, query string, args ...any) ([]sandbox.Sandbox, error) {
	rows, err := s.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, internal(err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	var all []sandbox.Sandbox
	for rows.Next() {
		var record []byte
		var r sandbox.Sandbox
		if err := rows.Scan(&record); err != nil {
			return nil, internal(err)
		}
		if err := json.Unmarshal(record, &r); err != nil {
			return nil, internal(err)
		}
		all = append(all, r)
	}
	return all, internal(rows.Err())
}
