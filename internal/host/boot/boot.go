// Package boot is what the first process of a guest does with its kernel: raw calls for a machine that it has for itself. Each
// refuses to work anywhere else.
package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNotFirst: this process is not the first one of a machine.
var ErrNotFirst = errors.New("this is the first process of a guest, and not to be run elsewhere")

func first() error {
	if os.Getpid() != 1 {
		return ErrNotFirst
	}
	return nil
}

// Mounts brings a guest from its initial memory to a system: the modules of /modules, a root that can be pivoted away from (the first one
// can't, pivot_root(2)), and the file systems that every program expects.
func Mounts() error {
	if err := first(); err != nil {
		return err
	}
	if err := mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/root", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		kind, where, data string
		flags             uintptr
	}{
		{"devtmpfs", "/dev", "", unix.MS_NOSUID},
		{"proc", "/proc", "", plain},
		{"sysfs", "/sys", "", plain},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", plain},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/run", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/dev/shm", "mode=1777", plain},
		{"devpts", "/dev/pts", "ptmxmode=666", unix.MS_NOSUID | unix.MS_NOEXEC},
	} {
		if err := mount(m.kind, m.where, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, target, err)
	}
	return nil
}

// loadModules loads the files that DIR/order names, in that order.
func loadModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if errors.Is(err, os.ErrNotExist) { // all is built in
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		if err := loadModule(filepath.Join(dir, name+".ko")); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != unix.EEXIST {
		return err
	}
	return nil
}

// Parameter is a word of the kernel's command line, NAME=VALUE; "" where it is not there.
func Parameter(name string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

// Limits raises the limit of open files, which the kernel gives a first process as low as programs have it.
func Limits() error {
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 19})
}

// SetTime sets the clock.
func SetTime(t time.Time) error {
	if err := first(); err != nil {
		return err
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return os.NewSyscallError("clock_settime", unix.ClockSettime(unix.CLOCK_REALTIME, &ts))
}

// AddEntropy mixes bytes into the kernel's random numbers, counts them, and makes new ones of them from now on. Source: random(4).
func AddEntropy(b []byte) error {
	if err := first(); err != nil {
		return err
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	pool := make([]byte, 8+len(b)) // struct rand_pool_info
	*(*int32)(unsafe.Pointer(&pool[0])) = int32(8 * len(b))
	*(*int32)(unsafe.Pointer(&pool[4])) = int32(len(b))
	copy(pool[8:], b)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&pool[0]))); errno != 0 {
		return os.NewSyscallError("RNDADDENTROPY", errno)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0)
	if errno != 0 {
		return os.NewSyscallError("RNDRESEEDCRNG", errno)
	}
	return nil
}

const rndReseedCRNG = 0x5207 // _IO('R', 0x07), include/uapi/linux/random.h

// Off writes what is dirty and ends the machine. A monitor sees its guest restart, and ends. It returns only where it may not be called.
func Off() error {
	if err := first(); err != nil {
		return err
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}
