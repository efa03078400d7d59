package disk

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// Budget keeps the host's disk from filling up, although disks are sparse: what the disks that are there may still grow
// by must fit into what is free. A lasting disk (a sandbox's own, a stateful machine's) counts in full; one that goes with
// its machine counts a part, since few programs fill theirs and none keeps it.
type Budget struct {
	Reserve    int64 // bytes of the host's file system that no disk may count on
	Overcommit int64 // by how much more than there is the disks that go with their machines may promise; at least 1

	mu      sync.Mutex
	folders []string
	scratch map[string]bool // those that go with their machine; what a former daemon left is lasting
	owed    int64           // what was promised when it was last counted, and since
	counted time.Time
	room    func(dir string) (free, total int64, err error) // of the file system; nil: statfs
}

// countEvery is how old a count may be: what is written in between makes it too high, never too low.
const countEvery = time.Second

// take promises room for a disk of size bytes at path, or says that the host has none.
//
// Errors: Capacity; Invalid, the host could never hold it.
func (b *Budget) take(path string, size int64, lasting bool) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.room
	if room == nil {
		room = statfs
	}
	free, total, err := room(filepath.Dir(path))
	if err != nil {
		return err
	}
	if size > total-b.Reserve {
		return sandbox.Errorf(sandbox.Invalid, nil, "a disk of %d MiB is more than the host's disk holds: ask for less", size>>20)
	}
	if time.Since(b.counted) > countEvery {
		b.count()
	}
	if !lasting {
		size /= max(1, b.Overcommit)
	}
	if free-b.Reserve-b.owed < size {
		e := sandbox.Errorf(sandbox.Capacity, nil, "the host's disk has no room for this disk, with what others may still write: try again later, or ask for less")
		e.RetryAfterSecs = 10
		return e
	}
	b.owed += size
	if !lasting {
		b.scratch[path] = true
	}
	return nil
}

// count adds up what the disks that are there may still grow by.
func (b *Budget) count() {
	b.owed, b.counted = 0, time.Now()
	there := map[string]bool{}
	for _, dir := range b.folders {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if strings.HasPrefix(e.Name(), spareName) { // nobody was promised it
				continue
			}
			var st unix.Stat_t
			if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			grow := max(0, st.Size-st.Blocks*512)
			if b.scratch[path] {
				there[path] = true
				grow /= max(1, b.Overcommit)
			}
			b.owed += grow
		}
	}
	b.scratch = there
}

func statfs(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// watch lets the disks in a folder count.
func (b *Budget) watch(dir string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.scratch == nil {
		b.scratch = map[string]bool{}
	}
	b.folders = append(b.folders, dir)
	b.counted = time.Time{}
}
