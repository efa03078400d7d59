package guest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/cell"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

// Every path in here is a client's or a program's: it is resolved by the kernel inside the programs' root, whatever
// links lie on its way. Source: openat2(2), RESOLVE_IN_ROOT.

var rootDir = sync.OnceValues(func() (int, error) {
	return unix.Open(cell.RootDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
})

const openPath = unix.O_PATH

func open(name string, flags int, mode uint32) (*os.File, error) {
	root, err := rootDir()
	if err != nil {
		return nil, err
	}
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(root, name, &how)
		// EAGAIN: something was renamed on the way, or a program holds a lease on the file, for as long as it likes.
		if err == unix.EINTR || err == unix.EAGAIN && try < 100 {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a regular file for reading; a fifo or device never blocks it.
func openRegular(name string) (*os.File, error) {
	f, err := open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errNotRegular
	}
	return f, nil
}

// as runs f on a thread that has the user's file rights and no others. That of a user with none but its own is thrown away
// after: it can't have its rights back.
func as(u user, f func() error) error {
	done := make(chan error)
	if u.uid == 0 && u.gid == 0 && len(u.groups) == 0 {
		asRoot(func() { done <- f() })
		return <-done
	}
	host.OnThread(func() {
		if err := become(u); err != nil {
			done <- err
			return
		}
		done <- f()
	})
	return <-done
}

// rootThreads have root's file rights and wait for work: most of what the agent does is root's, and a thread is dear.
var rootThreads = make(chan chan<- func(), 4)

// asRoot lets f run on one of them, beside the caller.
func asRoot(f func()) {
	select {
	case work := <-rootThreads:
		work <- f
	default:
		host.OnThread(func() { serveRoot(f) })
	}
}

func serveRoot(f func()) {
	if err := become(user{}); err != nil {
		panic("root's file rights: " + err.Error()) // the agent has every capability of its namespace
	}
	work := make(chan func())
	for f != nil {
		f()
		select {
		case rootThreads <- work:
			f = <-work
		default: // enough of them wait
			f = nil
		}
	}
}

// become gives the calling thread the user's file rights.
func become(u user) error {
	groups := make([]uint32, len(u.groups)+1)
	for i, g := range u.groups {
		groups[i] = uint32(g)
	}
	if err := setThreadGroups(groups[:len(u.groups)]); err != nil {
		return err
	}
	return setThreadIDs(u.uid, u.gid)
}

// makeDir makes a directory with all its parents where they are missing; what is made belongs to the user. field is the
// request's that it comes from.
func makeDir(field, dir string, u user) error {
	return as(user{}, func() error { // as root of the cell
		have := "/"
		for _, part := range strings.Split(path.Clean(dir), "/") {
			if part == "" {
				continue
			}
			next := path.Join(have, part)
			d, err := open(next, openPath|unix.O_DIRECTORY, 0)
			if errors.Is(err, fs.ErrNotExist) {
				d, err = makeOne(have, part, u)
			}
			if err != nil {
				return refuse(sandbox.Invalid, field, "%s can't be made: %s", dir, reason(err))
			}
			d.Close()
			have = next
		}
		return nil
	})
}

// isRoot says whether a directory is the programs' root, by whatever name.
func isRoot(dir string) bool {
	a, err1 := open(dir, openPath, 0)
	b, err2 := open("/", openPath, 0)
	if err1 != nil || err2 != nil {
		return false
	}
	defer a.Close()
	defer b.Close()
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// handOver gives the user a directory that is empty and that nobody but its owner may write to, as the image's own
// working directory is. One that holds something keeps its owner.
func handOver(dir string, u user) error {
	return as(user{}, func() error {
		d, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer d.Close()
		st, err := d.Stat()
		if err != nil || st.Mode().Perm()&0o022 != 0 {
			return err
		}
		if names, err := d.Readdirnames(1); len(names) > 0 || err != nil && err != io.EOF {
			return nil
		}
		return d.Chown(u.uid, u.gid)
	})
}

func makeOne(parent, name string, u user) (*os.File, error) {
	p, err := open(parent, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := unix.Mkdirat(int(p.Fd()), name, 0o755); err != nil && err != unix.EEXIST {
		return nil, err
	}
	fd, err := unix.Openat(int(p.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), name)
	if err := unix.Fchown(fd, u.uid, u.gid); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// makeParents makes the directories above a file, as the calling thread's user.
func makeParents(name string) error {
	dir := path.Dir(name)
	if d, err := open(dir, openPath|unix.O_DIRECTORY, 0); err == nil {
		d.Close()
		return nil
	}
	if dir == "/" {
		return fs.ErrNotExist
	}
	if err := makeParents(dir); err != nil {
		return err
	}
	p, err := open(path.Dir(dir), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := unix.Mkdirat(int(p.Fd()), path.Base(dir), 0o755); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// create opens a file for writing with the calling thread's rights, its parents made.
func create(name string, flags int) (*os.File, error) {
	if err := makeParents(name); err != nil {
		return nil, err
	}
	f, err := open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0o644)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, errNotRegular
	}
	return f, nil
}

// remove removes a file with the calling thread's rights.
func remove(name string) error {
	p, err := open(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	return unix.Unlinkat(int(p.Fd()), path.Base(name), 0)
}

// reason is an error in the words of its errno, without our paths.
func reason(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// rootFS is the programs' root for io/fs, to glob in, until so many names were read.
type rootFS struct{ left int }

func (*rootFS) Open(name string) (fs.File, error) {
	return open("/"+name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// ReadDir implements fs.ReadDirFS.
func (r *rootFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if r.left <= 0 {
		return nil, fs.ErrInvalid
	}
	d, err := open("/"+name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(r.left)
	r.left -= len(entries)
	if err != nil && err != io.EOF {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}
