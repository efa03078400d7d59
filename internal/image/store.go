package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
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

	roots     []string
	grants    []grant
	transport http.RoundTripper
	bounds    Bounds // of one image
	pulls     *turns
	builds    *turns
	room      *room // on the disk
	memory    *room
	log       *slog.Logger

	mu       sync.Mutex
	flights  map[string]*flight // that can be joined, by reference
	flying   map[string]int     // all under way, by namespace
	expected map[string]bool    // layers of images that are being made
	work     sync.WaitGroup
}

// Options is the operator's word on images.
type Options struct {
	LocalRoots        []string            // folders below which images by path may lie
	Private           map[string][]string // what of registries the host's credentials are for, and for which namespaces
	PrivateRegistries []string            // HOST or HOST:PORT of registries at private addresses that may be asked
	Bounds            Bounds              // of one image; zero: the usual
	Log               *slog.Logger        // nil: none
}

// Usual are the bounds of one image.
var Usual = Bounds{Bytes: 16 << 30, Files: 1 << 19, Meta: 64 << 20}

// Open gives the store in dir, making it where it is missing and removing what an interrupted build left. dir must be
// on a disk file system: EROFS files on others can't be mounted without a loop device.
func Open(dir string) (*Store, error) { return OpenWith(dir, Options{}) }

// OpenWith is Open with the operator's word. Error Invalid: the word makes no sense.
func OpenWith(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"", "layers", "made", "kept", "refs", "pins", "tmp", "apt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, sandbox.Errorf(sandbox.Internal, err, "the image store can't be made")
		}
	}
	s := &Store{
		dir: dir, flights: map[string]*flight{}, flying: map[string]int{}, expected: map[string]bool{},
		pulls: newTurns(pullsAtOnce, pullsOfOne), builds: newTurns(0, buildsOfOne), room: newDiskRoom(dir), memory: newMemoryRoom(),
		roots: o.LocalRoots, transport: newTransport(o.PrivateRegistries), bounds: o.Bounds, log: o.Log,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.bounds == (Bounds{}) {
		s.bounds = Usual
	}
	if s.grants, err = parseGrants(o.Private); err != nil {
		return nil, err
	}
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
		return noRoom(err)
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
