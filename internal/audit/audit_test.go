package audit_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/audit"
)

func open(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(path, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func lines(t *testing.T, path string) (all []audit.Entry) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var e audit.Entry
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatalf("%q: %v", s.Text(), err)
		}
		all = append(all, e)
	}
	return all
}

func TestLinesAreAppendedWholeByManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			for range 100 {
				if err := l.Write(audit.Entry{Action: "a.b", Object: map[string]string{"path": strings.Repeat("\n", i*100)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	if err := open(t, path).Write(audit.Entry{Action: "last"}); err != nil {
		t.Fatal(err)
	}
	if all := lines(t, path); len(all) != 801 || all[800].Action != "last" {
		t.Errorf("%d lines", len(all))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAfterReopenTheOldFileIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit.log.1")
	l := open(t, path)
	for i, then := range []func() error{
		func() error { return os.Rename(path, old) }, l.Reopen,
		func() error { return os.Chmod(dir, 0o700) },
	} {
		if err := l.Write(audit.Entry{Action: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		if err := then(); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := lines(t, old), lines(t, path); len(a) != 2 || len(b) != 1 || b[0].Action != "2" {
		t.Errorf("%v and %v", a, b)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if l.Reopen() == nil {
		t.Error("a folder is reopened")
	}
	if err := l.Write(audit.Entry{Action: "3"}); err != nil {
		t.Errorf("after a reopen that failed: %v", err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0) // else opening it would wait
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := audit.Open(fifo, func(error) {}); err == nil || !strings.Contains(err.Error(), "no file") {
		t.Error(err)
	}
}
