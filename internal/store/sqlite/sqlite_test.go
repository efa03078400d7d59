package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/service/storetest"
	"outpost.run/outpost/internal/store/sqlite"
)

func TestStore(t *testing.T) {
	var path string
	open := func(t *testing.T) service.Store {
		s, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	storetest.Run(t, func(t *testing.T) service.Store {
		path = filepath.Join(t.TempDir(), "a ?#%41.db") // a path that looks like a query
		return open(t)
	}, func(t *testing.T, s service.Store) service.Store {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return open(t)
	})
}

func TestOnlyTheOwnerReadsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outpost.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // a test's
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", filepath.Base(f), info.Mode(), err)
		}
	}
}
