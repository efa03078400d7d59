package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

func open(t *testing.T, most int64) *Spool {
	t.Helper()
	s, err := Open(t.TempDir()+"/spool", most)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsWrittenIsReadFromAnyOffset(t *testing.T) {
	s := open(t, 1<<30)
	l := s.New("x", 1<<30)
	want := make([]byte, 3*inMemory+77)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 1234)
		if _, err := l.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	l.End(0)
	for _, offset := range []int{0, 1, inMemory - 1, inMemory, inMemory + 1, len(want) - 1, len(want)} {
		got, err := io.ReadAll(io.NewSectionReader(l, int64(offset), int64(len(want)-offset)))
		if err != nil || !bytes.Equal(got, want[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
	for _, most := range []int{0, 10, inMemory, inMemory + 1, len(want) * 2} {
		if got := l.Head(most); !bytes.Equal(got, want[:min(most, len(want))]) {
			t.Errorf("head of %d: %d bytes", most, len(got))
		}
	}
}

func TestABoundLosesTheEndAndNothingBetween(t *testing.T) {
	for name, c := range map[string]struct{ log, all, want int64 }{
		"of the log": {100, 1 << 30, 100}, "of all in files": {1 << 30, 20_000, inMemory + 10_000},
	} {
		s := open(t, c.all)
		l := s.New("x", c.log)
		for range 1000 {
			_, _ = l.Write(bytes.Repeat([]byte("x"), 100))
		}
		if kept, total, _ := l.State(); kept > c.want || kept < c.want-100 || total != 100_000 {
			t.Errorf("%s: %d kept of %d, want %d", name, kept, total, c.want)
		}
		l.Drop()
		if s.Used() != 0 || len(s.owners) != 0 {
			t.Errorf("%s: %d bytes are used by nobody", name, s.Used())
		}
	}
}

func TestNobodyTakesTheRoomOfAll(t *testing.T) {
	s := open(t, 1<<20)
	for range 10 {
		_, _ = s.New("greedy", 1<<30).Write(make([]byte, 1<<18))
	}
	l := s.New("modest", 1<<30)
	_, _ = l.Write(make([]byte, 1<<18))
	if kept, _, _ := l.State(); kept != 1<<18 {
		t.Errorf("%d bytes kept", kept)
	}
}

func TestReadersFollowAndAWriterNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, err := os.MkdirTemp("", "spool")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s, err := Open(dir, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		l := s.New("x", 1<<30)
		sums := make(chan [32]byte, 3)
		for range cap(sums) {
			go func() {
				h, at := sha256.New(), int64(0)
				for buf := make([]byte, 999); ; {
					if err := l.Wait(t.Context(), at); err != nil {
						t.Error(err)
					}
					n, err := l.ReadAt(buf, at)
					if err != nil && err != io.EOF {
						t.Error(err)
					}
					h.Write(buf[:n])
					if at += int64(n); n == 0 { // Wait said that there is more, or none any more
						break
					}
				}
				sums <- [32]byte(h.Sum(nil))
			}()
		}
		h := sha256.New()
		for i := range 500 {
			b := bytes.Repeat([]byte{byte(i)}, i)
			h.Write(b)
			_, _ = l.Write(b)
		}
		l.End(0)
		for range cap(sums) {
			if sum := <-sums; sum != [32]byte(h.Sum(nil)) {
				t.Error("a reader saw something else")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		waits := s.New("x", 10)
		go cancel()
		if err := waits.Wait(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestALogThatLastsGoesOnInTheNextSpool(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one.out", "dropped.out", "forgotten.out", "another"} {
		_, _ = s.Lasting("x", name, 1<<30).Write(bytes.Repeat([]byte("a"), 100))
	}
	if s, err = Open(dir, 1<<30); err != nil { // the first one just ended, as by kill -9
		t.Fatal(err)
	}
	l := s.Lasting("x", "one.out", 1<<30)
	_, _ = l.Write([]byte("bcd"))
	l.End(0)
	if kept, total, ended := l.State(); kept != 103 || total != 103 || !ended || s.Used() != 103 || l.Filed() != 103 {
		t.Errorf("%d of %d bytes, %v; %d used", kept, total, ended, s.Used())
	}
	if got := string(l.Head(1000)); got != string(bytes.Repeat([]byte("a"), 100))+"bcd" {
		t.Errorf("%q", got)
	}
	if l.tail != nil {
		t.Error("one that has ended holds a descriptor")
	}
	dropped := s.Lasting("x", "dropped.out", 1<<30)
	dropped.Drop()
	if s.Used() != 103 || len(dropped.Head(10)) != 0 {
		t.Errorf("%d bytes used", s.Used())
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "lost+found"), 0o700), s.Sweep(".out"), dropped.Close()); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 || left[0].Name() != "another" || left[1].Name() != "lost+found" || left[2].Name() != "one.out" {
		t.Errorf("%v %v", left, err)
	}
	if l := s.Lasting("x", "new", 1<<30); l.Filed() != 0 || len(l.Head(10)) != 0 {
		t.Error("a new one has something")
	}
}
