// Package sqlite keeps the service's records in one SQLite file.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/store/sqlitefile"
	"outpost.run/outpost/sandbox"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a service.Store. A promise is written through a connection that waits for the disk at each commit; the rest
// through one that does not, which survives the end of the process, but not that of the power.
type Store struct {
	promises *sql.DB // synchronous=FULL, one connection
	quick    *sql.DB // synchronous=NORMAL, one connection
	readers  *sql.DB
}

var _ service.Store = (*Store)(nil)

// Open opens the file, makes it where it is missing, and brings its tables up to date. The file holds values of env:
// only its owner may read it.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := sqlitefile.Touch(path); err != nil {
		return nil, err
	}
	s := &Store{}
	var err error
	for _, c := range []struct {
		db          **sql.DB
		synchronous string
		connections int
	}{{&s.promises, "FULL", 1}, {&s.quick, "NORMAL", 1}, {&s.readers, "NORMAL", 4}} {
		if *c.db, err = sqlitefile.Open(path, c.synchronous, c.connections, "foreign_keys(ON)"); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := sqlitefile.Migrate(ctx, s.promises, migrations); err != nil {
		return nil, errors.Join(sqlitefile.Behind(path, err), s.Close())
	}
	return s, nil
}

// Close ends all connections.
func (s *Store) Close() error {
	var all []error
	for _, db := range []*sql.DB{s.promises, s.quick, s.readers} {
		if db != nil {
			all = append(all, db.Close())
		}
	}
	return errors.Join(all...)
}

// internal wraps a database's error for the operator's log.
func internal(err error) error {
	if err == nil {
		return nil
	}
	return sandbox.Errorf(sandbox.Internal, err, "the server's records could not be read or written")
}

// order is ORDER BY, LIMIT and OFFSET of a page; sort must be one of columns.
func order(p service.Paging, columns []string) (string, error) {
	sort := p.Sort
	if sort == "" {
		sort = "created_at"
	}
	for _, c := range columns {
		if c != sort {
			continue
		}
		direction := "ASC"
		if p.Descending {
			direction = "DESC"
		}
		return fmt.Sprintf(" ORDER BY %s %s, seq %s LIMIT %d OFFSET %d", c, direction, direction, p.PerPage, (p.Page-1)*p.PerPage), nil
	}
	return "", sandbox.Errorf(sandbox.Internal, nil, "lists can't be sorted by %q", sort)
}
