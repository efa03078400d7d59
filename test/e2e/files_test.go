package e2e_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

func TestALargeFileGoesThroughALittleMemory(t *testing.T) {
	s := newServer(t)
	leakCheck(t, s)
	r := stateful()
	r.ResourceLimits = &sandbox.LimitsRequest{MemoryMB: new(64), DiskMB: new(512)}
	made := s.box(t, r)
	const size = 256 << 20
	random := rand.NewChaCha8([32]byte{})
	sum := sha256.New()
	before := s.peak(t)
	if err := s.PutFile(t.Context(), made.ID, "big", io.TeeReader(io.LimitReader(random, size), sum), size, 0); err != nil {
		t.Fatal(err)
	}
	f, err := s.GetFile(t.Context(), made.ID, "big", 0)
	if err != nil {
		t.Fatal(err)
	}
	back := sha256.New()
	if n, err := io.Copy(back, f); n != size || err != nil || f.Size != size {
		t.Errorf("%d of %d bytes, %v", n, f.Size, err)
	}
	f.Close()
	if !bytes.Equal(back.Sum(nil), sum.Sum(nil)) {
		t.Error("another file came back")
	}
	if out := clean(t, s.python(t, made.ID, "import hashlib; print(hashlib.file_digest(open('big', 'rb'), 'sha256').hexdigest())")); out != hex.EncodeToString(sum.Sum(nil)) {
		t.Error("another file is inside")
	}
	if more := s.peak(t) - before; more > 64<<20 {
		t.Errorf("the server's memory grew by %d MiB for %d", more>>20, size>>20)
	}
	err = s.PutFile(t.Context(), made.ID, "more", io.LimitReader(random, 2*size), -1, 0)
	if sandbox.CodeOf(err) != sandbox.DiskFull {
		t.Errorf("more than the disk holds: %v", err)
	}
	if out := clean(t, s.python(t, made.ID, "import os; print(sorted(os.listdir('.')))")); out != "['big', 'main.py']" {
		t.Errorf("left of it: %s", out)
	}
}

// peak is the most memory that the server ever had, in bytes.
func (s *server) peak(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

func TestCpGoesBothWays(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	here := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(here, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(here, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("tree/run", "#!/bin/sh\necho ran\n", 0o755)
	write("tree/sub/ü", "deep", 0o644)
	if err := os.Symlink("run", filepath.Join(here, "tree/link")); err != nil {
		t.Fatal(err)
	}
	cp := func(args ...string) {
		t.Helper()
		if out, err := shared.command(append([]string{"cp"}, args...)...); err != nil {
			t.Fatalf("cp %v: %v %s", args, err, out)
		}
	}
	cp(filepath.Join(here, "tree"), made.ID+":in")
	cp(filepath.Join(here, "tree/run"), made.ID+":alone/")
	if out := clean(t, shared.python(t, made.ID, "import os, subprocess\nprint(subprocess.getoutput('./in/link'), subprocess.getoutput('./alone/run'), open('in/sub/ü').read(), os.readlink('in/link'))")); out != "ran ran deep run" {
		t.Errorf("inside: %s", out)
	}
	cp(made.ID+":in", filepath.Join(here, "back"))
	b, err := os.ReadFile(filepath.Join(here, "back/sub/ü"))
	st, err2 := os.Stat(filepath.Join(here, "back/run"))
	link, err3 := os.Readlink(filepath.Join(here, "back/link"))
	if string(b) != "deep" || st == nil || st.Mode().Perm() != 0o755 || link != "run" {
		t.Errorf("%q %v %q %v %v %v", b, st, link, err, err2, err3)
	}
	// What comes out may be anybody's work: it leaves the folder by no name and through no link.
	clean(t, shared.python(t, made.ID, "import os\nos.makedirs('evil'); os.symlink('"+here+"', 'evil/out')"))
	cp(made.ID+":evil", filepath.Join(here, "evil"))
	clean(t, shared.python(t, made.ID, "import os\nos.unlink('evil/out'); os.makedirs('evil/out'); open('evil/out/planted', 'w').write('x')"))
	_, _ = shared.command("cp", made.ID+":evil", filepath.Join(here, "evil"))
	if _, err := os.Stat(filepath.Join(here, "planted")); err == nil {
		t.Error("a sandbox wrote through a link of its own")
	}
	out, err := shared.command("cp", made.ID+":nowhere", here)
	if err == nil || !strings.Contains(out, "file_not_found") {
		t.Errorf("what is not there: %q, %v", out, err)
	}
}

func TestCpCopiesIntoFoldersAsCpDoes(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	here := t.TempDir()
	for name, text := range map[string]string{"tree/a": "of a", "tree/sub/b": "of b", "file": "of a file"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(here, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(here, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	type copied struct {
		From, To string
		Files    int
		Bytes    int64
	}
	for _, c := range []copied{
		{filepath.Join(here, "tree"), made.ID + ":in", 2, 8},      // made
		{filepath.Join(here, "tree"), made.ID + ":in/tree", 2, 8}, // into it
		{filepath.Join(here, "file"), made.ID + ":in/file", 1, 9},
		{filepath.Join(here, "file"), made.ID + ":in/file", 1, 9},
		{made.ID + ":in", filepath.Join(here, "out"), 5, 25},
		{made.ID + ":in/file", filepath.Join(here, "out/file"), 1, 9},
	} {
		to := strings.TrimSuffix(strings.TrimSuffix(c.To, "/file"), "/tree")
		if got := jsonOf[copied](t, shared, "cp", c.From, to); got != c {
			t.Errorf("cp %s %s: %+v, want %+v", c.From, to, got, c)
		}
	}
	if b, err := os.ReadFile(filepath.Join(here, "out/tree/sub/b")); string(b) != "of b" {
		t.Errorf("%q, %v", b, err)
	}
	e := finish(t, shared.outpostCommand("cp", made.ID+":in", "-"))
	var names []string
	for r := tar.NewReader(strings.NewReader(e.stdout)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	if e.code != 0 || !slices.Contains(names, "tree/sub/b") || !slices.Contains(names, "file") {
		t.Errorf("exit %d, %v\n%s", e.code, names, e.stderr)
	}
	full := stateful()
	full.ResourceLimits = &sandbox.LimitsRequest{DiskMB: new(8)}
	small := shared.box(t, full)
	cmd := shared.outpostCommand("cp", "-", small.ID+":big")
	cmd.Stdin = io.LimitReader(rand.NewChaCha8([32]byte{}), 32<<20)
	if e := finish(t, cmd); e.code != 1 || !strings.Contains(e.stderr, "--disk-mb") {
		t.Errorf("a full disk: exit %d\n%s", e.code, e.stderr)
	}
}

func TestAFilesHeadTellsItsSize(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	const size = 8 << 20
	if err := shared.PutFile(t.Context(), made.ID, "big", io.LimitReader(rand.NewChaCha8([32]byte{}), size), size, 0o640); err != nil {
		t.Fatal(err)
	}
	head := func(name string) *http.Response {
		t.Helper()
		a := shared.ask(t, http.MethodHead, "/auth/v1/seed/default/sandbox/"+made.ID+"/files?path="+name, nil, "")
		a.Body.Close()
		return a
	}
	for range 20 { // each leaves the agent as it was
		if a := head("big"); a.StatusCode != 200 || a.ContentLength != size || a.Header.Get("X-File-Mode") != "0640" {
			t.Fatalf("%d %v", a.StatusCode, a.Header)
		}
	}
	for name, want := range map[string]int{"nowhere": 404, ".": 409} {
		if a := head(name); a.StatusCode != want {
			t.Errorf("%s: %d, want %d", name, a.StatusCode, want)
		}
	}
}

func TestAFileThatGrowsIsHadAsItWas(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	grows := "import time\nwith open('log', 'w') as f:\n    f.write('first'); f.flush()\n    while True: f.write('some line\\n' * 100); f.flush(); time.sleep(.0001)"
	if _, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Code: &grows, TimeoutSecs: new(30)}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	for range 5 {
		f, err := shared.GetFile(t.Context(), made.ID, "log", 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil || int64(len(b)) != f.Size || !bytes.HasPrefix(b, []byte("firstsome line")) {
			t.Errorf("%d bytes of %d, %.20q, %v", len(b), f.Size, b, err)
		}
	}
}

func TestACopyGoesThroughLinksAndIntoPipes(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	clean(t, shared.python(t, made.ID, "open('a', 'w').write('new')"))
	dir := t.TempDir()
	real, link, pipe := filepath.Join(dir, "real"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(real, []byte("old"), 0o600), os.Symlink("real", link), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	if e := finish(t, shared.outpostCommand("cp", made.ID+":a", link)); e.code != 0 {
		t.Errorf("%+v", e)
	}
	if b, err := os.ReadFile(real); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	got := make(chan string, 1)
	go func() {
		b, err := os.ReadFile(pipe)
		got <- fmt.Sprint(string(b), err)
	}()
	if e := finish(t, shared.outpostCommand("cp", made.ID+":a", pipe)); e.code != 0 {
		t.Errorf("%+v", e)
	}
	if b := <-got; b != "new<nil>" {
		t.Error(b)
	}
	for name, kind := range map[string]os.FileMode{link: os.ModeSymlink, pipe: os.ModeNamedPipe} {
		if st, err := os.Lstat(name); err != nil || st.Mode().Type() != kind {
			t.Errorf("%s became %v, %v", name, st.Mode(), err)
		}
	}
	if e := finish(t, shared.outpostCommand("cp", dir, made.ID+":tree")); e.code != 1 || !strings.Contains(e.stderr, "pipe") {
		t.Errorf("a folder with a pipe: %+v", e)
	}
	if shared.IsFolder(t.Context(), made.ID, "tree") {
		t.Error("a part of it was copied")
	}
}
