package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"

	"outpost.run/outpost/internal/service"
)

// PutExec inserts or replaces what is kept of an exec. It need not survive the end of the power: its program doesn't.
func (s *Store) PutExec(ctx context.Context, n service.ExecNote) error {
	record, err := json.Marshal(n)
	if err != nil {
		return internal(err)
	}
	_, err = s.quick.ExecContext(ctx, `INSERT INTO execs (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record`, n.ID, string(record))
	return internal(err)
}

// DeleteExec is nil for what is gone.
func (s *Store) DeleteExec(ctx context.Context, id string) error {
	_, err := s.quick.ExecContext(ctx, `DELETE FROM execs WHERE id = ?`, id)
	return internal(err)
}

// Execs implements service.Store.
func (s *Store) Execs(ctx context.Context, each func(service.ExecNote) error) error {
	rows, err := s.readers.QueryContext(ctx, `SELECT record FROM execs ORDER BY seq`)
	if err != nil {
		return internal(err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	for rows.Next() {
		var record sql.RawBytes
		var n service.ExecNote
		if err := rows.Scan(&record); err != nil {
			return internal(err)
		}
		if err := json.Unmarshal(record, &n); err != nil {
			return internal(err)
		}
		if err := each(n); err != nil {
			return err
		}
	}
	return internal(rows.Err())
}
