package sqlite

import (
	"context"
	"time"

	"outpost.run/outpost/internal/service"
)

// BeginCall notes a call, unless there is a note of that key: then it answers that one and false.
func (s *Store) BeginCall(ctx context.Context, c service.Call) (service.Call, bool, error) {
	tx, err := s.quick.BeginTx(ctx, nil)
	if err != nil {
		return c, false, internal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nil after Commit
	if _, err := tx.ExecContext(ctx, `DELETE FROM calls WHERE scope = ? AND key = ? AND expires <= ?`, c.Scope, c.Key, c.Begun.Unix()); err != nil {
		return c, false, internal(err)
	}
	r, err := tx.ExecContext(ctx, `
		INSERT INTO calls (scope, key, body, run, done, status, answer, expires) VALUES (?, ?, ?, ?, 0, 0, x'', ?)
		ON CONFLICT DO NOTHING`, c.Scope, c.Key, c.Body[:], c.Run, c.Expires.Unix())
	if err != nil {
		return c, false, internal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 1 {
		if err == nil {
			err = tx.Commit()
		}
		return c, true, internal(err)
	}
	before := service.Call{Scope: c.Scope, Key: c.Key}
	var body []byte
	var expires int64
	err = tx.QueryRowContext(ctx, `SELECT body, run, done, status, answer, expires FROM calls WHERE scope = ? AND key = ?`, c.Scope, c.Key).
		Scan(&body, &before.Run, &before.Done, &before.Answer.Status, &before.Answer.Body, &expires)
	copy(before.Body[:], body)
	before.Expires = time.Unix(expires, 0)
	return before, false, internal(err)
}

// EndCall keeps the answer of a call until its Expires.
func (s *Store) EndCall(ctx context.Context, c service.Call) error {
	_, err := s.quick.ExecContext(ctx, `UPDATE calls SET done = 1, status = ?, answer = ?, expires = ? WHERE scope = ? AND key = ?`,
		c.Answer.Status, append([]byte{}, c.Answer.Body...), c.Expires.Unix(), c.Scope, c.Key)
	return internal(err)
}

// ForgetCall removes the note of a call.
func (s *Store) ForgetCall(ctx context.Context, scope, key string) error {
	_, err := s.quick.ExecContext(ctx, `DELETE FROM calls WHERE scope = ? AND key = ?`, scope, key)
	return internal(err)
}

// ExpireCalls removes the notes whose time is over.
func (s *Store) ExpireCalls(ctx context.Context, now time.Time) error {
	_, err := s.quick.ExecContext(ctx, `DELETE FROM calls WHERE expires <= ?`, now.Unix())
	return internal(err)
}
