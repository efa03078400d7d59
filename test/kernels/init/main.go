// The init of the kernel lane's guest: it loads modules, enters the disk as its root, mounts what a Linux system has,
// runs the test binaries of the plan one after the other, and powers off. It runs only as pid 1 of a virtual machine.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/test/kernels/plan"
)

// The guest's devices: the root disk and the serial line on which tests speak (the console has the first one).
const (
	rootDevice = "/dev/vda"
	testLine   = "/dev/ttyS1"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this is the init of a test guest; it runs as pid 1 only")
		os.Exit(2)
	}
	out, err := boot()
	if out == nil {
		out = os.Stderr
	}
	if err == nil {
		err = runAll(out)
	}
	if err != nil {
		say(out, plan.Fatal, err.Error())
	} else {
		say(out, plan.Done)
	}
	drain(out)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// boot brings the guest from the initramfs to a root of its own; out is the tests' line as soon as it is open.
func boot() (out *os.File, err error) {
	if err := mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil {
		return nil, err
	}
	if err := loadModules("/modules"); err != nil {
		return nil, err
	}
	if err := enterDisk(); err != nil {
		return nil, err
	}
	for _, m := range []struct {
		what, where, data string
		flags             uintptr
	}{
		{"devtmpfs", "/dev", "", 0},
		{"proc", "/proc", "", 0},
		{"sysfs", "/sys", "", 0},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/tmp", "mode=1777", 0},
		{"tmpfs", "/run", "mode=755", 0},
		{"tmpfs", "/dev/shm", "mode=1777", 0},
		{"devpts", "/dev/pts", "ptmxmode=666", 0},
	} {
		if err := mount(m.what, m.where, m.what, m.flags, m.data); err != nil {
			return nil, err
		}
	}
	if err := unix.Sethostname([]byte("outpost-guest")); err != nil {
		return nil, err
	}
	// What systemd gives a service; the kernel's own hard limit is as low as some that tests set.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 524288}); err != nil {
		return nil, fmt.Errorf("set the limit of open files: %w", err)
	}
	if out, err = openLine(testLine); err != nil {
		return nil, err
	}
	return out, loopbackUp()
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
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		f, err := os.Open(filepath.Join(dir, name+".ko"))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

// enterDisk makes the disk the root as switch_root does: pivot_root, which tests use, refuses to work on the initramfs.
func enterDisk() error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err := os.Stat(rootDevice); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s did not appear", rootDevice)
		}
		time.Sleep(5 * time.Millisecond) // devtmpfs has no event for it
	}
	if err := mount(rootDevice, "/disk", "ext4", 0, ""); err != nil {
		return err
	}
	if err := os.Chdir("/disk"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the disk to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot to the disk: %w", err)
	}
	return os.Chdir("/")
}

// openLine opens a serial line that passes bytes as they are.
func openLine(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

// drain waits until the line has sent all that was written to it.
func drain(f *os.File) {
	_ = unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1)
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

func say(out *os.File, word string, args ...string) {
	fmt.Fprintf(out, "%s%s\n", plan.Mark, strings.Join(append([]string{word}, args...), " "))
}

func runAll(out *os.File) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	say(out, plan.Kernel, unix.ByteSliceToString(uts.Release[:]))
	text, err := os.ReadFile(plan.File)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("%s: %w", plan.File, err)
	}
	for _, r := range p.Runs {
		say(out, plan.Begin, r.Name)
		code, err := run(r, p.Env, out)
		if err != nil {
			return fmt.Errorf("run %s: %w", r.Name, err)
		}
		say(out, plan.End, fmt.Sprint(code), r.Name)
	}
	return nil
}

// run starts one test binary, copies its output line by line, and reaps whatever ends meanwhile: pid 1 inherits orphans.
func run(r plan.Run, env []string, out *os.File) (int, error) {
	rd, wr, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer rd.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	p, err := os.StartProcess(r.Argv[0], r.Argv, &os.ProcAttr{Dir: r.Dir, Env: env, Files: []*os.File{null, wr, wr}})
	wr.Close()
	if err != nil {
		return 0, err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		in := bufio.NewReader(rd)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				fmt.Fprintln(out, strings.TrimSuffix(line, "\n"))
			}
			if err != nil {
				return
			}
		}
	}()
	var ws unix.WaitStatus
	for {
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if pid == p.Pid {
			break
		}
	}
	select {
	case <-copied:
	case <-time.After(2 * time.Second): // an orphan of the test holds the pipe
		rd.Close()
		<-copied
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}
