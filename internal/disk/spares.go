package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// spares are the files of disks that were thrown away, empty now, for those that are made next: a new inode is dear where
// many were freed lately. Source: recently_deleted in fs/ext4/ialloc.c.
type spares struct {
	mu    sync.Mutex
	files map[string][]string // by their folder, the longest unused first
	made  int
}

const (
	spareName = "spare-"
	mostSpare = 128
)

// Return takes back the disk of a machine that is gone, whose content is of no use to anyone: it is dropped at once.
func (m *Maker) Return(path string) error { return m.spares.put(path) }

// Forget removes the spare files of a folder.
func (m *Maker) Forget(dir string) {
	m.spares.mu.Lock()
	defer m.spares.mu.Unlock()
	for _, path := range m.spares.files[dir] {
		_ = os.Remove(path)
	}
	delete(m.spares.files, dir)
}

func (s *spares) put(path string) error {
	err := os.Truncate(path, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	dir := filepath.Dir(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files[dir]) >= mostSpare {
		return os.Remove(path)
	}
	s.made++
	spare := filepath.Join(dir, fmt.Sprintf("%s%d", spareName, s.made))
	if err := os.Rename(path, spare); err != nil {
		return err
	}
	if s.files == nil {
		s.files = map[string][]string{}
	}
	s.files[dir] = append(s.files[dir], spare)
	return nil
}

// take lets a spare file become the one at path, if there is one that no loop device has any more: the device of a thrown-away
// disk clears itself a moment after its last mount is gone. Until then it holds the lock that attachLoop of internal/host took. Where
// there is none, or something is wrong with it, a new file is made.
func (s *spares) take(path string) {
	dir := filepath.Dir(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, spare := range s.files[dir] {
		if i == 3 { // those behind are younger
			return
		}
		free, err := unlocked(spare)
		if err == nil && !free {
			continue
		}
		s.files[dir] = append(s.files[dir][:i:i], s.files[dir][i+1:]...)
		if err == nil {
			_ = os.Rename(spare, path)
		}
		return
	}
}

// unlocked says whether nobody holds a lock on the file, and empties it once more.
func unlocked(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Truncate(0)
}
