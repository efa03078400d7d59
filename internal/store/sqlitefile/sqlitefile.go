// Package sqlitefile opens SQLite files as the server keeps them, and brings their tables up to date.
package sqlitefile

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver
)

// Touch makes a file where it is missing. It holds values of env: only its owner may read it.
func Touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Open opens a file by so many connections, whose commits wait for the disk as synchronous says (FULL, NORMAL). pragmas are more of them.
func Open(path, synchronous string, connections int, pragmas ...string) (*sql.DB, error) {
	all := append([]string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(" + synchronous + ")"}, pragmas...)
	q := url.Values{"_txlock": {"immediate"}, "_pragma": all}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	return db, nil
}

// Migrate brings the tables of a file up to date by the migrations in the folder of that name.
func Migrate(ctx context.Context, db *sql.DB, migrations fs.FS) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Behind is the error of a file whose tables could not be brought up to date.
func Behind(path string, err error) error {
	return fmt.Errorf("the database %s could not be brought up to date: %w", filepath.Base(path), err)
}
