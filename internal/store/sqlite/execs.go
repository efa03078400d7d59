package sqlite

import (
	"context"
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

// Execs are those of every namespace, the one that was put first first.
func (s *Store) Execs(ctx context.Context) ([]service.ExecNote, error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT record FROM execs ORDER BY seq`)
	if err != nil {
		return nil, internal(err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	var all []service.ExecNote
	for rows.Next() {
		var record []byte
		var n service.ExecNote
		if err := rows.Scan(&record); err != nil {
			return nil, internal(err)
		}
		if err := json.Unmarshal(record, &n); err != nil {
			return nil, internal(err)
		}
		all = append(all, n)
	}
	return all, internal(rows.Err())
}
