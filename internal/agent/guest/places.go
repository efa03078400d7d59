package guest

import (
	"errors"
	"io"
	"os"
	"path"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// makePlaces makes what every program takes for granted and an image may lack.
func makePlaces() error {
	return as(user{}, func() error {
		d, err := open("/tmp", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) {
			if d, err = makeOne("/", "tmp", user{}); err == nil {
				err = d.Chmod(0o777 | os.ModeSticky)
			}
		}
		if err != nil {
			return refuse(sandbox.Invalid, "image", "the image has something else than a directory at /tmp: %s", reason(err))
		}
		return d.Close()
	})
}

// makePrivate makes a directory for the calling thread's user alone; it must not be there yet.
func makePrivate(dir string) error {
	p, err := open(path.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	return unix.Mkdirat(int(p.Fd()), path.Base(dir), 0o700)
}

// A program may have filled the directory that removeTree removes: beyond these it gives up.
const (
	removeEntries = 20_000
	removeDepth   = 62 // folders within the one that is removed
)

var errTooMuch = errors.New("too much to remove")

// removeTree removes a directory with all in it, with the calling thread's rights; links are removed, never followed.
func removeTree(dir string) error {
	p, err := open(path.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	return removeAll(int(p.Fd()), path.Base(dir), entries(removeEntries), removeDepth)
}

// entries is a bound for removeAll, which others may lower while it goes on.
func entries(n int64) *atomic.Int64 {
	left := &atomic.Int64{}
	left.Store(n)
	return left
}

// removeAll removes an entry, and all that is in it where it is a folder, with the calling thread's rights. Programs may add entries all
// the while; beyond so many that are left it gives up.
func removeAll(dir int, name string, left *atomic.Int64, depth int) error {
	if left.Add(-1) < 0 {
		return errTooMuch
	}
	err := unix.Unlinkat(dir, name, 0)
	if err != unix.EISDIR {
		return err
	}
	if depth < 0 {
		return errTooDeep
	}
	for {
		if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != unix.ENOTEMPTY {
			return err
		}
		if err := removeIn(dir, name, left, depth); err != nil {
			return err
		}
	}
}

// removeIn removes what is in a folder now, or a part of it.
func removeIn(dir int, name string, left *atomic.Int64, depth int) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	names, err := d.Readdirnames(1024)
	if err != nil && err != io.EOF {
		return err
	}
	for _, n := range names {
		if err := removeAll(fd, n, left, depth-1); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return nil
}
