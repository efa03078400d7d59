package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"outpost.run/outpost/internal/service"
)

// Clock is what PutClock kept last, if it did.
func (s *Store) Clock(ctx context.Context) (n service.ClockNote, noted bool, err error) {
	var origin, ahead, seen int64
	err = s.readers.QueryRowContext(ctx, `SELECT boot, origin, ahead, seen FROM clock`).Scan(&n.Boot, &origin, &ahead, &seen)
	if errors.Is(err, sql.ErrNoRows) {
		return service.ClockNote{}, false, nil
	}
	n.Origin, n.Ahead, n.Seen = time.Unix(0, origin), time.Duration(ahead), time.Unix(0, seen)
	return n, err == nil, internal(err)
}

// PutClock keeps the line of time.
func (s *Store) PutClock(ctx context.Context, n service.ClockNote) error {
	_, err := s.quick.ExecContext(ctx, `INSERT INTO clock (id, boot, origin, ahead, seen) VALUES (1, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, origin = excluded.origin, ahead = excluded.ahead, seen = excluded.seen`,
		n.Boot, n.Origin.UnixNano(), int64(n.Ahead), n.Seen.UnixNano())
	return internal(err)
}

// Moments are those of every sandbox, by id, that were put with any.
func (s *Store) Moments(ctx context.Context) (map[string]service.Moments, error) {
	rows, err := s.readers.QueryContext(ctx, `SELECT id, made, used FROM sandboxes WHERE made IS NOT NULL`)
	if err != nil {
		return nil, internal(err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	all := map[string]service.Moments{}
	for rows.Next() {
		var id string
		var made, used int64
		if err := rows.Scan(&id, &made, &used); err != nil {
			return nil, internal(err)
		}
		all[id] = service.Moments{Made: time.UnixMilli(made), Used: time.UnixMilli(used)}
	}
	return all, internal(rows.Err())
}
