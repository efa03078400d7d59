package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// Store keeps images in a folder on disk: layers by their content, images by their reference. Two processes may use one
// folder. All methods are safe for concurrent use.
type Store struct {
	dir   string
	ctx   context.Context // of all builds; ended by Close
	close context.CancelFunc

	mu       sync.Mutex
	flights  map[string]*flight
	expected map[string]bool // layers of images that are being made
	work     sync.WaitGroup
}

// flight is one build under way and what its waiters see of it.
type flight struct {
	done    chan struct{}
	changed chan struct{} // closed and replaced with each step
	now     Progress
	img     Image
	err     error
}

// Open gives the store in dir, making it where it is missing and removing what an interrupted build left. dir must be
// on a disk file system: EROFS files on others can't be mounted without a loop device.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"", "layers", "made", "kept", "refs", "pins", "tmp", "apt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, sandbox.Errorf(sandbox.Internal, err, "the image store can't be made")
		}
	}
	s := &Store{dir: dir, flights: map[string]*flight{}, expected: map[string]bool{}}
	s.ctx, s.close = context.WithCancel(context.Background())
	if err := s.removeLeftovers(); err != nil {
		return nil, sandbox.Errorf(sandbox.Internal, err, "what an interrupted image build left can't be removed")
	}
	return s, nil
}

// Close ends builds under way and waits until they have cleared up.
func (s *Store) Close() {
	s.close()
	s.work.Wait()
}

// Ensure gives the image of ref, building it where it is missing; progress (nil for none) is called from this goroutine
// while it waits. Callers of one ref share one build, which goes on when a caller's ctx ends.
//
// Errors: ImageNotFound, a reference, suite or package that is not there; NotSupported, this host can't build images,
// with what mends it; Internal, with the failing tool's last line. A failed build is tried anew by the next call.
func (s *Store) Ensure(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	ref = r.String()
	if img, ok := s.Get(ref); ok {
		return img, nil
	}
	f, err := s.join(r)
	if err != nil {
		return Image{}, err
	}
	for {
		s.mu.Lock()
		now, changed := f.now, f.changed
		s.mu.Unlock()
		if progress != nil && now.Phase != "" {
			progress(now)
		}
		select {
		case <-f.done:
			return f.img, f.err
		case <-changed:
		case <-ctx.Done():
			return Image{}, ctx.Err()
		}
	}
}

// join gives the build of r that is under way, or starts it.
func (s *Store) join(r reference) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := r.String()
	if f, ok := s.flights[ref]; ok {
		return f, nil
	}
	if s.ctx.Err() != nil {
		return nil, sandbox.Errorf(sandbox.ShuttingDown, nil, "the image store is closed")
	}
	f := &flight{done: make(chan struct{}), changed: make(chan struct{}), now: Progress{Ref: ref, Phase: "lists"}}
	s.flights[ref] = f
	s.work.Go(func() {
		f.img, f.err = s.build(s.ctx, r, func(p Progress) {
			s.mu.Lock()
			defer s.mu.Unlock()
			f.now = p
			close(f.changed)
			f.changed = make(chan struct{})
		})
		if f.err != nil && s.ctx.Err() != nil {
			f.err = sandbox.Errorf(sandbox.ShuttingDown, f.err, "the image build was ended")
		}
		f.err = typed(f.err)
		s.mu.Lock()
		if delete(s.flights, ref); len(s.flights) == 0 {
			clear(s.expected)
		}
		s.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// typed gives err the code Internal where it has none.
func typed(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*sandbox.Error](err); ok {
		return err
	}
	return sandbox.Errorf(sandbox.Internal, err, "the image could not be made; the server's log says why")
}

// Building tells how far the build of ref is, if one is under way in this process.
func (s *Store) Building(ref string) (Progress, bool) {
	r, err := parseReference(ref)
	if err != nil {
		return Progress{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.flights[r.String()]
	if !ok {
		return Progress{}, false
	}
	return f.now, true
}

// The locks hold against other processes too.
const (
	buildLock = "lock"  // for one build of packages
	indexLock = "index" // for a moment: what layers there are, and who has them
)

func (s *Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// removeLeftovers takes what killed builds left out of tmp. What is in use there is locked.
func (s *Store) removeLeftovers() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "tmp"))
	if err != nil {
		return err
	}
	patience := time.Now().Add(settling)
	for _, e := range entries {
		err = errors.Join(err, s.removeLeftover(filepath.Join(s.dir, "tmp", e.Name()), time.Until(patience)))
	}
	return err
}

func (s *Store) removeLeftover(path string, patience time.Duration) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer f.Close()
	if building, err := lockWithin(f, patience); building || err != nil {
		return err
	}
	return s.removeTemp(path)
}

// settling is how long a killed build's children, which were between fork and exec, may hold its lock.
const settling = 2 * time.Second

// lockWithin takes the lock; building: another process has it for longer than that.
func lockWithin(f *os.File, patience time.Duration) (building bool, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return false, err
		}
		if time.Now().After(end) {
			return true, nil
		}
	}
}

// tempDir makes a folder in tmp, locked as long as it is in use; release removes it.
func (s *Store) tempDir() (dir string, release func(), err error) {
	for {
		dir, err = os.MkdirTemp(filepath.Join(s.dir, "tmp"), "build-")
		if err != nil {
			return "", nil, full(err)
		}
		f, err := os.Open(dir)
		if err == nil {
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
				return dir, func() { _ = s.removeTemp(dir); f.Close() }, nil
			}
			f.Close()
		}
		// Another process took it for a leftover before it was locked.
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			return "", nil, err
		}
	}
}

// full names a full disk as what it is.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return sandbox.Errorf(sandbox.Capacity, err, "the image store is full: an operator must make room for it (outpost image prune)")
	}
	return err
}

// removeTemp removes a build's folder, and refuses where something is mounted below it.
func (s *Store) removeTemp(dir string) error {
	info, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			return fmt.Errorf("something is mounted at %s", f[4])
		}
	}
	return os.RemoveAll(dir)
}
