// Package spool keeps what programs write, so that readers can follow it at their own pace and come back to it. The first
// bytes of a log are in memory, the rest in a file without a name (O_TMPFILE, open(2)): nothing of it outlives the process. One
// that is to last is a file with a name.
package spool

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// inMemory is how much of a log has no file; most programs say less.
const inMemory = 32 << 10

// Spool makes logs, which together keep a bounded number of bytes in files; those of one owner at most half of that, so that nobody
// takes all.
type Spool struct {
	dir  *os.File
	most int64 // bytes in files of all logs
	used atomic.Int64

	mu      sync.Mutex
	owners  map[string]*owner
	lasting map[string]bool // names of logs that last
}

// owner counts what the logs of one have.
type owner struct {
	name string
	used atomic.Int64
	logs int // under Spool.mu
}

// Open uses a folder, which it makes where it is missing, for at most so many bytes, and a quarter of what its file system has free now:
// what programs say must not stop the server's own records.
func Open(dir string, most int64) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	most = min(most, int64(fs.Bavail)*fs.Bsize/4)
	s := &Spool{dir: f, most: most, owners: map[string]*owner{}, lasting: map[string]bool{}}
	try, err := s.file() // else what is long would be cut, and nobody would know why
	if err != nil {
		return nil, err
	}
	return s, try.Close()
}

// Used is how many bytes the logs have in files.
func (s *Spool) Used() int64 { return s.used.Load() }

// Full says that the logs have all but used up their room.
func (s *Spool) Full() bool { return s.used.Load() > s.most*7/8 }

// FullFor says that the logs of one owner have all but used up what is theirs.
func (s *Spool) FullFor(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.owners[name]
	return o != nil && o.used.Load() > s.most/2*7/8
}

// take counts bytes in files, unless there is no room for them.
func (s *Spool) take(o *owner, n int64) bool {
	if o.used.Add(n) <= s.most/2 {
		if s.used.Add(n) <= s.most {
			return true
		}
		s.used.Add(-n)
	}
	o.used.Add(-n)
	return false
}

func (s *Spool) give(o *owner, n int64) {
	s.used.Add(-n)
	o.used.Add(-n)
}

// Log is one stream of a program. One goroutine writes, any number reads.
type Log struct {
	s    *Spool
	of   *owner
	most int64
	name string // of one that lasts, all of which is in its file

	mu    sync.Mutex
	head  []byte
	tail  *os.File // what is not in memory; nil: nothing is there, or it lasts and has ended
	kept  int64
	total int64
	ended bool
	gone  bool
	more  chan struct{} // closed when there is more to read; nil: nobody waits
}

// New makes a log of an owner that keeps at most so many bytes. Drop, then Close, let go of it.
func (s *Spool) New(name string, most int64) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.owners[name]
	if o == nil {
		o = &owner{name: name}
		s.owners[name] = o
	}
	o.logs++
	return &Log{s: s, of: o, most: most}
}

// Lasting makes a log that outlives the process, by its name: what was written to it before is there. Close removes it.
func (s *Spool) Lasting(owner, name string, most int64) *Log {
	l := s.New(owner, most)
	l.name = name
	s.mu.Lock()
	s.lasting[name] = true
	s.mu.Unlock()
	f, err := s.named(name, unix.O_RDWR)
	if err != nil { // nothing was
		return l
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return l
	}
	l.tail, l.kept, l.total = f, st.Size(), st.Size()
	s.used.Add(l.kept)
	l.of.used.Add(l.kept)
	return l
}

// named opens the file of a log that lasts.
func (s *Spool) named(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(s.dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Sweep removes the files of logs that lasted, whose names end so, and that nobody has asked for since.
func (s *Spool) Sweep(endings ...string) error {
	names, err := s.dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed []error
	for _, name := range names {
		if !s.lasting[name] && slices.Contains(endings, filepath.Ext(name)) {
			failed = append(failed, s.remove(name))
		}
	}
	return errors.Join(failed...)
}

func (s *Spool) remove(name string) error {
	if err := unix.Unlinkat(int(s.dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// Ended is a log of nobody's that has kept these of so many bytes.
func (s *Spool) Ended(b []byte, total int64) *Log {
	return &Log{s: s, of: &owner{}, head: b, kept: int64(len(b)), total: total, ended: true}
}

// leave lets go of an owner's log.
func (s *Spool) leave(l *Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := l.of
	if o.logs--; o.logs == 0 && s.owners[o.name] == o {
		delete(s.owners, o.name)
	}
}

// Write keeps what there is room for and counts the rest: it never fails and never waits for a reader, only for the disk.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept == l.total && !l.ended { // no holes: what follows a loss is lost
		l.keep(b[:min(int64(len(b)), l.most-l.kept)])
		l.wake()
	}
	l.total += int64(len(b))
	return len(b), nil
}

func (l *Log) keep(b []byte) {
	if room := l.inMemory() - len(l.head); room > 0 {
		n := min(room, len(b))
		l.head = append(l.head, b[:n]...)
		l.kept += int64(n)
		b = b[n:]
	}
	if len(b) == 0 {
		return
	}
	if !l.s.take(l.of, int64(len(b))) {
		return
	}
	n := 0
	if l.tail == nil {
		l.tail, _ = l.file()
	}
	if l.tail != nil {
		n, _ = l.tail.WriteAt(b, l.kept-int64(l.inMemory())) // a full disk keeps less, as the bound does
	}
	l.kept += int64(n)
	l.s.give(l.of, int64(len(b)-n))
}

// inMemory is how much of the log is.
func (l *Log) inMemory() int {
	if l.name != "" {
		return 0
	}
	return inMemory
}

func (l *Log) file() (*os.File, error) {
	if l.name != "" {
		return l.s.named(l.name, unix.O_RDWR|unix.O_CREAT)
	}
	return l.s.file()
}

func (s *Spool) file() (*os.File, error) {
	fd, err := unix.Openat(int(s.dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == unix.EOPNOTSUPP || err == unix.EISDIR { // a file system that has no such files
		f, err := os.CreateTemp(s.dir.Name(), "spool-*")
		if err != nil {
			return nil, err
		}
		return f, os.Remove(f.Name())
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: s.dir.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), "spool"), nil
}

func (l *Log) wake() {
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// End says that nothing more will be written, and how much was in all; what did not come here is lost.
func (l *Log) End(total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended, l.total = true, max(l.total, total)
	if l.name != "" && l.tail != nil { // who reads opens it by its name
		l.tail.Close()
		l.tail = nil
	}
	l.wake()
}

// Drop forgets all that was kept; readers find the end. It is quick: what takes the disk's time is left to Close.
func (l *Log) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	l.s.give(l.of, l.filed())
	l.ended, l.gone, l.head, l.kept = true, true, nil, 0
	l.s.leave(l)
	l.wake()
}

// Close removes what a log that was dropped has on the disk.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if l.tail != nil {
		err = l.tail.Close()
		l.tail = nil
	}
	if l.name == "" {
		return err
	}
	l.s.mu.Lock()
	delete(l.s.lasting, l.name)
	l.s.mu.Unlock()
	return errors.Join(err, l.s.remove(l.name))
}

// State says how many bytes are kept, how many were written, and whether more may come.
func (l *Log) State() (kept, total int64, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept, l.total, l.ended
}

// ReadAt implements io.ReaderAt on what is kept now; io.EOF is the end of that, not of the log. Nobody waits for its disk but who called.
func (l *Log) ReadAt(b []byte, offset int64) (int, error) {
	for {
		n, err := l.readAt(b, offset)
		if !errors.Is(err, os.ErrClosed) { // else it ended, or was dropped, within
			return n, err
		}
	}
}

func (l *Log) readAt(b []byte, offset int64) (n int, err error) {
	l.mu.Lock()
	if offset < int64(len(l.head)) {
		n = copy(b, l.head[offset:])
	}
	kept, tail := l.kept, l.tail
	l.mu.Unlock()
	at := offset + int64(n)
	if n < len(b) && at < kept {
		var m int
		m, err = l.readTail(tail, b[n:min(int64(len(b)), int64(n)+kept-at)], at-int64(l.inMemory()))
		n += m
	}
	if n < len(b) && err == nil {
		err = io.EOF
	}
	return n, err
}

func (l *Log) readTail(tail *os.File, b []byte, at int64) (int, error) {
	if tail != nil {
		return tail.ReadAt(b, at)
	}
	f, err := l.s.named(l.name, unix.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return 0, io.EOF // it was dropped
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(b, at)
}

// Wait returns when there is something to read at offset, or the log has ended, or ctx has.
func (l *Log) Wait(ctx context.Context, offset int64) error {
	for {
		l.mu.Lock()
		if l.kept > offset || l.ended {
			l.mu.Unlock()
			return nil
		}
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Head gives the first bytes, at most so many, of what is kept.
func (l *Log) Head(most int) []byte {
	l.mu.Lock()
	kept, head := l.kept, l.head
	l.mu.Unlock()
	n := int(min(kept, int64(most)))
	if n <= len(head) {
		return head[:n:n] // what is written there stays
	}
	b := make([]byte, n)
	n, _ = l.ReadAt(b, 0) // a disk that can't be read has less
	return b[:n]
}

// Filed is how many bytes of the log are in a file.
func (l *Log) Filed() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.filed()
}

func (l *Log) filed() int64 { return max(0, l.kept-int64(l.inMemory())) }

// Memory is about what the log costs in memory, in bytes.
func (l *Log) Memory() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cap(l.head)
}
