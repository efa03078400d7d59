package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// attachLoop binds a file to a free loop device that clears itself when its last user is gone. A device that may write holds a
// lock on the file, since it holds the open file that took it: no second one gets it. Source: loop(4), flock(2).
func attachLoop(file string, readOnly bool) (*os.File, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	backing, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	if !readOnly {
		if err := lockSoon(backing); err != nil {
			return nil, step("lock the loop device's file", err)
		}
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices (load the loop module, or give the container /dev/loop-control): %w", err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if readOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	for try := 0; ; try++ { // another process may take the free device first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, step("find a free loop device", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) || try == 1000 {
			return nil, step("configure the loop device", err)
		}
	}
}

// lockSoon locks a file that a loop device may just be about to let go.
func lockSoon(f *os.File) error {
	for try := 0; ; try++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR || try == 50 {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// HasLoop says whether a loop device has the file, by whatever path. Source: loop(4), LOOP_GET_STATUS64.
func HasLoop(file string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return false, nil
	}
	used, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return false, err
	}
	for _, path := range used {
		name := filepath.Base(filepath.Dir(filepath.Dir(path)))
		dev, err := os.OpenFile("/dev/"+name, os.O_RDONLY, 0)
		if err != nil {
			if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) { // it was let go meanwhile
				continue
			}
			return false, err
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		dev.Close()
		if err == nil && info.Inode == st.Ino && info.Device == uint64(st.Dev) {
			return true, nil
		}
	}
	return false, nil
}
