package e2e_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver

	"outpost.run/outpost/sandbox"
)

// anHourOn changes the records of a stopped server as they would be if the wall clock, by which they were written, had been set forward
// by an hour since.
func (s *server) anHourOn(t *testing.T) {
	t.Helper()
	hour := time.Hour
	s.alter(t,
		fmt.Sprintf(`UPDATE sandboxes SET made = made - %d, used = used - %[1]d`, hour.Milliseconds()),
		`UPDATE sandboxes SET record = json_set(record, '$.created_at', strftime('%Y-%m-%dT%H:%M:%fZ', created_at, '-1 hour'))`,
		`UPDATE sandboxes SET created_at = json_extract(record, '$.created_at')`,
		fmt.Sprintf(`UPDATE clock SET origin = origin - %d, seen = seen - %[1]d`, hour.Nanoseconds()))
}

func (s *server) alter(t *testing.T, changes ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(s.dir, "outpost.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's
	for _, q := range changes {
		if r, err := db.Exec(q); err != nil {
			t.Fatal(err)
		} else if n, _ := r.RowsAffected(); n == 0 {
			t.Fatalf("nothing to alter: %s", q)
		}
	}
}

// TestTimesGoByTheBootsClockOverARestart: nobody may set a real host's clock, so the records are set back instead, by an hour.
func TestTimesGoByTheBootsClockOverARestart(t *testing.T) {
	s := newServer(t)
	leakCheck(t, s)
	box := s.box(t, sandbox.CreateRequest{Mode: new("stateful"), TTLSecs: new(1800)})
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	s.anHourOn(t)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), box.ID)
	if err != nil {
		t.Fatalf("in the same boot a wall clock set forward ended it: %v", err)
	}
	if left := time.Until(got.ExpiresAt.Time); left > 1800*time.Second || left < 900*time.Second {
		t.Errorf("of 1800 s %v are left, by expires_at", left)
	}
	if out := clean(t, s.python(t, box.ID, "print('lives on')")); out != "lives on" {
		t.Errorf("it says %q", out)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	s.anHourOn(t)
	s.alter(t, `UPDATE clock SET boot = 'another', ahead = 0`)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := s.Get(t.Context(), box.ID); sandbox.CodeOf(err) == sandbox.NotFound {
			break
		} else if err != nil || time.Now().After(end) {
			t.Fatalf("an hour and a boot later it is still there (%v)", err)
		}
	}
}
