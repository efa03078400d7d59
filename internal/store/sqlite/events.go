package sqlite

import (
	"context"
	"encoding/json"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// AddEvent implements service.Store.
func (s *Store) AddEvent(ctx context.Context, namespace string, e sandbox.Event) (uint64, error) {
	record, err := json.Marshal(e)
	if err != nil {
		return 0, internal(err)
	}
	r, err := s.quick.ExecContext(ctx, `INSERT INTO events (namespace, sandbox_id, at, record) VALUES (?, ?, ?, ?)`,
		namespace, e.SandboxID, e.At.String(), string(record))
	if err != nil {
		return 0, internal(err)
	}
	seq, err := r.LastInsertId()
	return uint64(seq), internal(err)
}

// Events implements service.Store.
func (s *Store) Events(ctx context.Context, q service.EventQuery) ([]sandbox.Event, error) {
	where, args := ` WHERE namespace = ? AND seq > ?`, []any{q.Namespace, q.Since}
	if q.SandboxID != "" {
		where, args = where+` AND sandbox_id = ?`, append(args, q.SandboxID)
	}
	rows, err := s.readers.QueryContext(ctx, `SELECT seq, record FROM events`+where+` ORDER BY seq LIMIT ?`, append(args, q.Most)...)
	if err != nil {
		return nil, internal(err)
	}
	defer rows.Close()
	var all []sandbox.Event
	for rows.Next() {
		var seq uint64
		var record string
		if err := rows.Scan(&seq, &record); err != nil {
			return nil, internal(err)
		}
		var e sandbox.Event
		if err := json.Unmarshal([]byte(record), &e); err != nil {
			return nil, internal(err)
		}
		e.Seq = seq
		all = append(all, e)
	}
	return all, internal(rows.Err())
}

// LastEvent implements service.Store.
func (s *Store) LastEvent(ctx context.Context) (uint64, error) {
	var seq uint64
	err := s.readers.QueryRowContext(ctx, `SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)`).Scan(&seq)
	return seq, internal(err)
}

// ExpireEvents implements service.Store.
func (s *Store) ExpireEvents(ctx context.Context, before time.Time) error {
	_, err := s.quick.ExecContext(ctx, `DELETE FROM events WHERE at < ?`, sandbox.At(before).String())
	return internal(err)
}
