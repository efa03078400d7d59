package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// PutCredential inserts one.
func (s *Store) PutCredential(ctx context.Context, c service.Credential) error {
	var expires any
	if c.ExpiresAt != nil {
		expires = c.ExpiresAt.String()
	}
	_, err := s.promises.ExecContext(ctx, `
		INSERT INTO credentials (id, kind, name, namespace, role, rate_limit, hash, maker, created_at, expires_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.ID, c.Kind, c.Name, c.Namespace, string(c.Role), c.RateLimit, c.Hash[:], c.Maker, c.CreatedAt.String(), expires)
	return internal(err)
}

const credentialColumns = `SELECT id, kind, name, namespace, role, rate_limit, hash, maker, created_at, expires_at`

// CredentialByHash finds the one whose secret has that hash.
func (s *Store) CredentialByHash(ctx context.Context, hash [32]byte) (service.Credential, error) {
	return scanCredential(s.readers.QueryRowContext(ctx, credentialColumns+` FROM credentials WHERE hash = ?`, hash[:]))
}

// Credential finds one by its id.
func (s *Store) Credential(ctx context.Context, id string) (service.Credential, error) {
	return scanCredential(s.readers.QueryRowContext(ctx, credentialColumns+` FROM credentials WHERE id = ?`, id))
}

// ListCredentials gives one page and how many match in all.
func (s *Store) ListCredentials(ctx context.Context, q service.CredentialQuery) ([]service.Credential, int, error) {
	tail, err := order(q.Paging, service.CredentialSorts)
	if err != nil {
		return nil, 0, err
	}
	where, args := ` FROM credentials WHERE kind = ?`, []any{q.Kind}
	for _, f := range []struct{ column, value string }{{"namespace", q.Namespace}, {"maker", q.Maker}} {
		if f.value != "" {
			where, args = where+" AND "+f.column+" = ?", append(args, f.value)
		}
	}
	var total int
	if err := s.readers.QueryRowContext(ctx, `SELECT count(*)`+where, args...).Scan(&total); err != nil {
		return nil, 0, internal(err)
	}
	rows, err := s.readers.QueryContext(ctx, credentialColumns+where+tail, args...)
	if err != nil {
		return nil, 0, internal(err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	var all []service.Credential
	for rows.Next() {
		c, err := scanCredential(rows)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, c)
	}
	return all, total, internal(rows.Err())
}

// DeleteCredential removes it together with every token that was made with it, or with one of those.
func (s *Store) DeleteCredential(ctx context.Context, id string) error {
	_, err := s.promises.ExecContext(ctx, `
		WITH RECURSIVE gone(id) AS (
			VALUES (?)
			UNION SELECT c.id FROM credentials AS c JOIN gone ON c.maker = gone.id WHERE c.kind = 'pat'
		) DELETE FROM credentials WHERE id IN (SELECT id FROM gone)`, id)
	return internal(err)
}

func scanCredential(row interface{ Scan(...any) error }) (service.Credential, error) {
	var (
		c               service.Credential
		hash            []byte
		created         string
		expires         sql.NullString
		rate            sql.NullInt64
		role            string
		moment, expired time.Time
	)
	err := row.Scan(&c.ID, &c.Kind, &c.Name, &c.Namespace, &role, &rate, &hash, &c.Maker, &created, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return c, sandbox.Errorf(sandbox.NotFound, nil, "there is no such credential")
	}
	if err != nil {
		return c, internal(err)
	}
	if moment, err = time.Parse(time.RFC3339, created); err != nil {
		return c, internal(err)
	}
	c.Role, c.CreatedAt = sandbox.Role(role), sandbox.At(moment)
	copy(c.Hash[:], hash)
	if rate.Valid {
		n := int(rate.Int64)
		c.RateLimit = &n
	}
	if expires.Valid {
		if expired, err = time.Parse(time.RFC3339, expires.String); err != nil {
			return c, internal(err)
		}
		at := sandbox.At(expired)
		c.ExpiresAt = &at
	}
	return c, nil
}
