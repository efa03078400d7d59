// Package compiled keeps programs that were compiled, so that the same code in the same namespace needs no compiler. It is
// a store of files and knows no machines: what goes in was taken from a machine before any program ran there, and what comes
// out is copied into another. No machine ever sees a file of it.
package compiled

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Store is a folder of programs. All methods are safe for concurrent use.
type Store struct {
	dir  string
	most int64 // bytes of all

	mu     sync.Mutex
	kept   map[string]*kept
	held   map[string]int64         // bytes, by owner
	coming map[string]chan struct{} // closed when what is expected is there, or will not come
	stats  Stats
}

// kept is one file: the program, then its SHA-256.
type kept struct {
	size  int64 // of the file
	used  time.Time
	sound bool // the sum was right, or this process wrote it: a crash tears files, nothing else does
}

func (k *kept) program() int64 { return k.size - sha256.Size }

// Stats are counted since the store was opened, but for Programs and Bytes, which are what it holds, and Coming, which are on
// their way.
type Stats struct {
	Hits, Misses, Kept, Evicted int64
	Programs, Coming            int
	Bytes                       int64
}

// unfinished is the beginning of names of files that are being written.
const unfinished = "new-"

// Open finds what is kept in dir, and lets go of what is over most bytes.
func Open(dir string, most int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, most: most, kept: map[string]*kept{}, held: map[string]int64{}, coming: map[string]chan struct{}{}}
	for _, d := range all {
		info, err := d.Info()
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, err
		case strings.HasPrefix(d.Name(), unfinished): // a crash left it
			if err := os.Remove(s.path(d.Name())); err != nil {
				return nil, err
			}
		case info.Mode().IsRegular():
			s.add(d.Name(), &kept{size: info.Size(), used: info.ModTime()})
		}
	}
	s.bound()
	return s, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func owner(name string) string { first, _, _ := strings.Cut(name, "-"); return first }

func (s *Store) add(name string, k *kept) {
	s.drop(name)
	s.kept[name] = k
	s.held[owner(name)] += k.size
	s.stats.Bytes += k.size
}

func (s *Store) drop(name string) {
	k := s.kept[name]
	if k == nil {
		return
	}
	delete(s.kept, name)
	s.stats.Bytes -= k.size
	if s.held[owner(name)] -= k.size; s.held[owner(name)] == 0 {
		delete(s.held, owner(name))
	}
}

// Program is a file to copy from, whose first Size bytes are the program.
type Program struct {
	File *os.File // open to read; who asked closes it
	Size int64
}

// Get gives the program of a key; nil: it is not kept.
func (s *Store) Get(k Key) *Program {
	name := k.name()
	s.await(name)
	s.mu.Lock()
	entry := s.kept[name]
	sound := entry != nil && entry.sound
	s.mu.Unlock()
	var p *Program
	if entry != nil {
		p = s.open(name, entry.program(), sound)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil {
		s.stats.Misses++
		if entry != nil && s.kept[name] == entry { // not another that came meanwhile
			s.drop(name)
			_ = os.Remove(s.path(name))
		}
		return nil
	}
	s.stats.Hits++
	now := time.Now()
	entry.sound, entry.used = true, now
	_ = os.Chtimes(s.path(name), now, now) // unnoted, the next start thinks it older than it is
	return p
}

// open opens a file and, where that is not known, finds out whether it is whole.
func (s *Store) open(name string, size int64, sound bool) *Program {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil
	}
	info, err := f.Stat()
	if err != nil || info.Size() != size+sha256.Size || !sound && !whole(f, size) {
		_ = f.Close()
		return nil
	}
	return &Program{f, size}
}

func whole(f *os.File, size int64) bool {
	if size <= 0 {
		return false
	}
	h, sum := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return false
	}
	_, err := f.ReadAt(sum, size)
	return err == nil && bytes.Equal(sum, h.Sum(nil))
}

// errTooLarge: one program must not push out most others.
var errTooLarge = errors.New("it is more than a quarter of what is kept in all")

// comingMost bounds the memory of programs that a slow disk has not taken yet.
const comingMost = 8

// Expect says that a program is about to be put, which Get waits for until the function it gives is called. nil: it is not
// wanted, since the same is coming already, or too much is.
func (s *Store) Expect(k Key) (here func()) {
	name, c := k.name(), make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coming[name] != nil || len(s.coming) >= comingMost {
		return nil
	}
	s.coming[name] = c
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.coming, name)
		close(c)
	}
}

// await waits for a program that is expected, and no longer than compiling a small one takes.
func (s *Store) await(name string) {
	s.mu.Lock()
	c := s.coming[name]
	s.mu.Unlock()
	if c == nil {
		return
	}
	select {
	case <-c:
	case <-time.After(100 * time.Millisecond):
	}
}

// Put keeps a program of size bytes, which r gives, under a key. Nothing is synced: a file that a crash tore has another
// sum.
func (s *Store) Put(k Key, size int64, r io.Reader) error {
	if size > s.most/4 {
		return errTooLarge
	}
	f, err := os.CreateTemp(s.dir, unfinished)
	if err != nil {
		return err
	}
	err = errors.Join(write(f, size, r), f.Close())
	name := k.name()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = os.Rename(f.Name(), s.path(name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	s.add(name, &kept{size: size + sha256.Size, used: time.Now(), sound: true})
	s.stats.Kept++
	s.bound()
	return nil
}

func write(f *os.File, size int64, r io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, size))
	if err == nil && n < size {
		err = fmt.Errorf("%d bytes of %d: %w", n, size, io.ErrUnexpectedEOF)
	}
	if err == nil {
		_, err = f.Write(h.Sum(nil))
	}
	return err
}

// bound lets go of what was not used for longest, of the namespace that has most: however much one compiles, it never
// costs another that has less.
func (s *Store) bound() {
	for s.stats.Bytes > s.most {
		names := make([]string, 0, len(s.kept))
		most := largest(s.held)
		for name := range s.kept {
			if owner(name) == most {
				names = append(names, name)
			}
		}
		oldest := slices.MinFunc(names, func(a, b string) int { return s.kept[a].used.Compare(s.kept[b].used) })
		s.drop(oldest)
		s.stats.Evicted++
		_ = os.Remove(s.path(oldest)) // one that stays is found by the next start
	}
}

func largest(held map[string]int64) string {
	owners := make([]string, 0, len(held))
	for o := range held {
		owners = append(owners, o)
	}
	return slices.MaxFunc(owners, func(a, b string) int { return cmp.Or(cmp.Compare(held[a], held[b]), cmp.Compare(a, b)) })
}

// Stats are the store's counters.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Programs, stats.Coming = len(s.kept), len(s.coming)
	return stats
}
