package vmm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// DialSocket connects to a Unix socket in a folder that a monitor may write to. It may have put something else there: no link is followed,
// and nothing but a socket is spoken to. The path may be longer than a socket address.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode()&os.ModeType != os.ModeSocket {
		return nil, fmt.Errorf("%s is no socket", path)
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
}

// RemoveJail removes a folder that a monitor could write to, and all in it, without following a link or leaving its file system.
func RemoveJail(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return os.Remove(path)
	}
	var here, above unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &here); err != nil {
		return err
	}
	if err := unix.Statx(unix.AT_FDCWD, path+"/..", unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &above); err != nil {
		return err
	}
	if here.Mnt_id != above.Mnt_id {
		return fmt.Errorf("something is mounted on %s", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := RemoveJail(path + "/" + e.Name()); err != nil {
			return err
		}
	}
	return os.Remove(path)
}
