package compiled_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/internal/compiled"
)

func open(t *testing.T, dir string, most int64) *compiled.Store {
	t.Helper()
	s, err := compiled.Open(dir, most)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func of(namespace, source string) compiled.Key {
	return compiled.Key{Namespace: namespace, Language: "go", Source: source}
}

func put(t *testing.T, s *compiled.Store, k compiled.Key, program string) {
	t.Helper()
	if err := s.Put(k, int64(len(program)), strings.NewReader(program)); err != nil {
		t.Fatal(err)
	}
}

// get is the program of a key, "" for none.
func get(t *testing.T, s *compiled.Store, k compiled.Key) string {
	t.Helper()
	p := s.Get(k)
	if p == nil {
		return ""
	}
	defer p.File.Close()
	b := make([]byte, p.Size)
	if _, err := io.ReadFull(p.File, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAProgramIsThereAgainAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	if get(t, s, of("a", "x")) != "" {
		t.Error("an empty store has a program")
	}
	put(t, s, of("a", "x"), "first")
	put(t, s, of("a", "x"), "second")
	if got := get(t, s, of("a", "x")); got != "second" {
		t.Errorf("%q", got)
	}
	if want := (compiled.Stats{Hits: 1, Misses: 1, Kept: 2, Programs: 1, Bytes: 6 + sha256.Size}); s.Stats() != want {
		t.Errorf("%+v, want %+v", s.Stats(), want)
	}
	s = open(t, dir, 1<<20)
	if got := get(t, s, of("a", "x")); got != "second" {
		t.Errorf("after a restart: %q", got)
	}
}

func TestATornFileIsNoProgram(t *testing.T) {
	for name, tear := range map[string]func(b []byte) []byte{
		"without its sum":     func(b []byte) []byte { return b[:len(b)-sha256.Size] },
		"without its end":     func(b []byte) []byte { return b[:len(b)-1] },
		"with a wrong byte":   func(b []byte) []byte { b[2] ^= 1; return b },
		"of zeros":            func(b []byte) []byte { return make([]byte, len(b)) },
		"without anything":    func([]byte) []byte { return nil },
		"with the sum alone":  func([]byte) []byte { sum := sha256.Sum256(nil); return sum[:] },
		"with another's sum":  func(b []byte) []byte { sum := sha256.Sum256([]byte("other")); return append(b[:7], sum[:]...) },
		"with more behind it": func(b []byte) []byte { return append(b, 'x') },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, open(t, dir, 1<<20), of("a", "x"), "program")
			paths, _ := filepath.Glob(filepath.Join(dir, "*"))
			b, err := os.ReadFile(paths[0])
			if err != nil || len(paths) != 1 {
				t.Fatalf("%v, %v", err, paths)
			}
			if err := os.WriteFile(paths[0], tear(b), 0o600); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir, 1<<20)
			if got := get(t, s, of("a", "x")); got != "" {
				t.Errorf("it gives %q", got)
			}
			if _, err := os.Stat(paths[0]); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is still there: %v", err)
			}
			if st := s.Stats(); st.Programs != 0 || st.Bytes != 0 {
				t.Errorf("it counts: %+v", st)
			}
			put(t, s, of("a", "x"), "program")
			if got := get(t, s, of("a", "x")); got != "program" {
				t.Errorf("made anew: %q", got)
			}
		})
	}
}

func TestWhatSomebodyRemovedIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	for what, change := range map[string]func(path string) error{
		"removed": os.Remove,
		"cut":     func(path string) error { return os.Truncate(path, 3) },
	} {
		put(t, s, of("a", "x"), "program")
		paths, _ := filepath.Glob(filepath.Join(dir, "*"))
		if err := change(paths[0]); err != nil {
			t.Fatal(err)
		}
		if got := get(t, s, of("a", "x")); got != "" {
			t.Errorf("%s: it gives %q", what, got)
		}
		if st := s.Stats(); st.Programs != 0 || st.Bytes != 0 {
			t.Errorf("%s: it counts: %+v", what, st)
		}
	}
}

func TestWhatACrashLeftHalfWrittenGoes(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, "new-123")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, 1<<20)
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestAProgramThatEndsEarlyIsNotKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	if err := s.Put(of("a", "x"), 10, strings.NewReader("short")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 || get(t, s, of("a", "x")) != "" {
		t.Errorf("left: %v", left)
	}
}

// TestEachInputMakesAnotherKey changes each field of a key alone; all keys must be of different programs.
func TestEachInputMakesAnotherKey(t *testing.T) {
	base := compiled.Key{Namespace: "a", Language: "b", Script: "c", Source: "d", Image: "e", Layers: []string{"f"}, Deps: []string{"g"},
		User: "h", Dir: "i", Preset: "j", Egress: "k", Env: [][2]string{{"l", "m"}}}
	keys := map[string]compiled.Key{"none": base}
	for i := range reflect.TypeFor[compiled.Key]().NumField() {
		name := reflect.TypeFor[compiled.Key]().Field(i).Name
		k := base
		switch f := reflect.ValueOf(&k).Elem().Field(i); f.Interface().(type) {
		case string:
			f.SetString(f.String() + "x")
		case []string:
			f.Set(reflect.ValueOf([]string{"f", "x"}))
		case [][2]string:
			f.Set(reflect.ValueOf([][2]string{{"l", "other"}}))
		default:
			t.Fatalf("field %s has a type that this test does not know", name)
		}
		keys[name] = k
	}
	more := func(name string, change func(*compiled.Key)) { k := base; change(&k); keys[name] = k }
	more("a layer for a set", func(k *compiled.Key) { k.Layers, k.Deps = []string{"f", "g"}, nil })
	more("a variable more", func(k *compiled.Key) { k.Env = [][2]string{{"l", "m"}, {"l2", ""}} })
	more("a name for a value", func(k *compiled.Key) { k.Env = [][2]string{{"lm", ""}} })
	more("bytes that are no text", func(k *compiled.Key) { k.Source = "\xff" })
	more("others that are none", func(k *compiled.Key) { k.Source = "\xfe" })
	s := open(t, t.TempDir(), 1<<20)
	for name, k := range keys {
		if got := get(t, s, k); got != "" {
			t.Errorf("%s has the key of %s", name, got)
		}
		put(t, s, k, name)
	}
	for name, k := range keys {
		if got := get(t, s, k); got != name {
			t.Errorf("%s gives %q", name, got)
		}
	}
}

const size = 1000 // of a program, with its sum

func program(i int) string { return strings.Repeat(string(rune('a'+i)), size-sha256.Size) }

func TestWhatWasNotUsedForLongestGoes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 4*size)
	for i := range 4 {
		put(t, s, of("a", fmt.Sprint(i)), program(i))
	}
	get(t, s, of("a", "0"))
	put(t, s, of("a", "4"), program(4))
	for i, want := range []bool{true, false, true, true, true} {
		if got := get(t, s, of("a", fmt.Sprint(i))); (got != "") != want {
			t.Errorf("program %d is there: %v", i, got != "")
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 4 {
		t.Errorf("%d files", len(left))
	}
	s = open(t, dir, 2*size) // the operator gives it less
	if st := s.Stats(); st.Programs != 2 || st.Bytes != 2*size || st.Evicted != 2 {
		t.Errorf("%+v", st)
	}
	if get(t, s, of("a", "3")) == "" || get(t, s, of("a", "4")) == "" {
		t.Error("the last used were not kept")
	}
}

func TestANamespaceCostsNoOtherThatHasLess(t *testing.T) {
	s := open(t, t.TempDir(), 8*size)
	put(t, s, of("small", "0"), program(0))
	for i := range 100 {
		put(t, s, of("large", fmt.Sprint(i)), program(1))
	}
	if get(t, s, of("small", "0")) == "" {
		t.Error("what one compiles pushed out another's")
	}
	if st := s.Stats(); st.Programs != 8 || st.Bytes != 8*size {
		t.Errorf("%+v", st)
	}
	for i := range 4 {
		put(t, s, of("small", fmt.Sprint(i)), program(0))
	}
	for i := range 4 {
		if get(t, s, of("small", fmt.Sprint(i))) == "" {
			t.Error("its share is not half")
		}
	}
}

func TestAProgramOfMoreThanAQuarterIsNotKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 400)
	if err := s.Put(of("a", "x"), 101, strings.NewReader(strings.Repeat("x", 101))); err == nil {
		t.Error("it was kept")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 16*size)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 200 {
				k := (w + i) % 24
				if p := s.Get(of("a", fmt.Sprint(k))); p != nil {
					b, err := io.ReadAll(io.NewSectionReader(p.File, 0, p.Size))
					if err != nil || string(b) != program(k) {
						t.Errorf("%v, %d bytes", err, len(b))
					}
					p.File.Close()
				} else if err := s.Put(of("a", fmt.Sprint(k)), int64(len(program(k))), strings.NewReader(program(k))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if st := s.Stats(); st.Programs != len(files) || st.Bytes != int64(len(files))*size || st.Bytes > 16*size {
		t.Errorf("%+v with %d files", st, len(files))
	}
}

func TestWhatIsComingIsWaitedFor(t *testing.T) {
	s := open(t, t.TempDir(), 1<<20)
	k := of("a", "x")
	here := s.Expect(k)
	if s.Expect(k) != nil {
		t.Error("the same is wanted twice")
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		put(t, s, k, "program")
		here()
	}()
	if got := get(t, s, k); got != "program" {
		t.Errorf("%q", got)
	}
	for i := range 100 {
		if wanted := s.Expect(of("a", fmt.Sprint(i))) != nil; wanted != (i < 8) {
			t.Fatalf("with %d coming another is wanted: %v", i, wanted)
		}
	}
	if s.Stats().Coming != 8 {
		t.Errorf("%+v", s.Stats())
	}
	if got := get(t, s, of("a", "0")); got != "" {
		t.Errorf("%q", got)
	}
}
