package e2e_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// compiled are the programs that the server keeps, by their files' names, with when each was last used. They get there
// beside the execs: it waits a while for so many.
func (s *server) compiled(t *testing.T, want int) (kept map[string]time.Time) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		all, err := os.ReadDir(filepath.Join(s.dir, "compiled"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		kept = map[string]time.Time{}
		for _, d := range all {
			info, err := d.Info()
			if err == nil && !strings.HasPrefix(d.Name(), "new-") {
				kept[d.Name()] = info.ModTime()
			}
		}
		if len(kept) == want {
			return kept
		}
		if time.Now().After(end) {
			t.Fatalf("%d programs are kept, want %d: %v", len(kept), want, kept)
		}
	}
}

func TestTheSameProgramIsCompiledOnce(t *testing.T) {
	s := newServer(t)
	leakCheck(t, s)
	run := func(by *client.Client, language string) sandbox.ExecResult {
		t.Helper()
		r, err := by.Execute(t.Context(), sandbox.ExecuteRequest{Language: &language, Code: new(says[language]), Args: []string{"x"}, ResourceLimits: roomy()})
		if err != nil {
			t.Fatal(err)
		}
		if out := clean(t, r); out != "x" || r.Stderr != "" || r.Start != "cold" {
			t.Fatalf("%+v", r)
		}
		return r
	}
	other, err := client.New(s.Address(), adminToken, client.WithNamespace("other"))
	if err != nil {
		t.Fatal(err)
	}
	for i, language := range []string{"go", "rust"} {
		first := run(s.Client, language)
		made := s.compiled(t, 2*i+1)
		again := run(s.Client, language)
		now := s.compiled(t, 2*i+1)
		if used(made, now) != 1 {
			t.Errorf("%s: after the second run: %v, before it %v", language, now, made)
		}
		if again.Usage.CPUMS*4 > first.Usage.CPUMS {
			t.Errorf("%s: the first run took %.1f ms of the processor, the second %.1f", language, first.Usage.CPUMS, again.Usage.CPUMS)
		}
		run(other, language)
		if after := s.compiled(t, 2*i+2); used(now, after) != 0 {
			t.Errorf("%s: after a run in another namespace: %v, before it %v", language, after, now)
		}
	}
	made := s.compiled(t, 4)
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	torn := 0
	for name := range made {
		if torn++; torn%2 == 0 { // as a crash might have left it
			if err := os.Truncate(filepath.Join(s.dir, "compiled", name), 100_000); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if other, err = client.New(s.Address(), adminToken, client.WithNamespace("other")); err != nil {
		t.Fatal(err)
	}
	for _, language := range []string{"go", "rust"} {
		run(s.Client, language)
		run(other, language)
	}
	end := time.Now().Add(10 * time.Second)
	for now := s.compiled(t, 4); used(made, now) != 4; now = s.compiled(t, 4) { // those that were torn come a moment later
		if time.Now().After(end) {
			t.Fatalf("after a restart: %v, before it %v", now, made)
		}
	}
	s.flags = append(s.flags, "--compiled-keep-mb", "0")
	if err := errors.Join(s.terminate(), s.start()); err != nil {
		t.Fatal(err)
	}
	run(s.Client, "go")
	s.compiled(t, 0)
}

// used is how many of before were used since.
func used(before, now map[string]time.Time) (n int) {
	for name, at := range before {
		if now[name].After(at) {
			n++
		}
	}
	return n
}
