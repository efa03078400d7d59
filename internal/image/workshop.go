package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A workshop is a thread in a mount namespace of its own, in which an image's tree is put together and the image's own
// programs run. Nothing of it is seen outside; when its function returns or the process dies, its mounts are gone.
type workshop struct {
	mounts []string // in order of mounting
	loops  []*os.File
}

const programLimit = 5 * time.Minute // for one program of an image, such as ldconfig

// inWorkshop calls f on such a thread. What f does with paths it must do on its own goroutine.
func inWorkshop(f func(*workshop) error) error {
	done := make(chan error, 1)
	go lockedThread(func() {
		w := &workshop{}
		err := w.enter()
		if err == nil {
			err = f(w)
		}
		done <- errors.Join(err, w.clear())
	})
	return <-done
}

// lockedThread runs f on a thread that ends with it, never on the process's first: that one can't end, and what
// /proc/self tells would stay changed.
func lockedThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); lockedThread(f) }()
	<-done
	runtime.UnlockOSThread()
}

func (w *workshop) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("a mount namespace of its own: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private propagation: %w", err)
	}
	return checkPrivate()
}

// checkPrivate refuses a thread whose mounts others would see.
func checkPrivate() error {
	mine, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	process, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	if mine == process {
		return errors.New("the thread is not in a mount namespace of its own")
	}
	info, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(info)) {
		if head, _, _ := strings.Cut(line, " - "); strings.Contains(head, " shared:") {
			return fmt.Errorf("a mount is shared with others: %s", strings.Fields(head)[4])
		}
	}
	return nil
}

func (w *workshop) mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", fstype, err)
	}
	w.mounts = append(w.mounts, target)
	return nil
}

// mountLayer mounts an EROFS file: straight where the kernel can (6.12 on), else through a loop device.
func (w *workshop) mountLayer(file, target string) error {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	err := w.mount(file, target, "erofs", flags, "")
	if !errors.Is(err, unix.ENOTBLK) {
		return err
	}
	dev, err := attachLoop(file)
	if err != nil {
		return err
	}
	w.loops = append(w.loops, dev)
	return w.mount(dev.Name(), target, "erofs", flags, "")
}

// attachLoop gives a read-only loop device on file that clears itself when it is used no more.
func attachLoop(file string) (*os.File, error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	src, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	for range 16 { // another process may take the free one first
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(src.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("loop device: %w", err)
		}
	}
	return nil, errors.New("no loop device stays free")
}

// mountDev gives programs in root a /dev in memory with null and urandom alone.
func (w *workshop) mountDev(root string) error {
	dev := filepath.Join(root, "dev")
	if err := w.mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "size=1m,mode=755"); err != nil {
		return err
	}
	for name, minor := range map[string]uint32{"null": 3, "urandom": 9} {
		node := filepath.Join(dev, name)
		if err := errors.Join(unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))), os.Chmod(node, 0o666)); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program of the tree at root, chrooted, without network, in namespaces of its own that end with it.
func (w *workshop) run(ctx context.Context, root string, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, programLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/root", "PYTHONHASHSEED=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     root,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		if n := len(out); n > 2000 {
			out = out[n-2000:]
		}
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// clear takes the mounts away, the last first. It may be called twice.
func (w *workshop) clear() error {
	var errs []error
	for i := len(w.mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(w.mounts[i], unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount: %w", err))
		}
	}
	for _, dev := range w.loops {
		errs = append(errs, dev.Close())
	}
	w.mounts, w.loops = nil, nil
	return errors.Join(errs...)
}
