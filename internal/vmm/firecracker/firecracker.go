// Package firecracker runs virtual machines in Firecracker, each under its jailer: in a root, a user, a network and a mount namespace of its own,
// under Firecracker's own seccomp filters.
package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/vmm"
)

// Monitor implements vmm.Monitor.
type Monitor struct {
	program, jailer string
	port            uint32
}

// New takes the paths of the two programs, and the vsock port at which guests' keepers listen.
func New(program, jailer string, port uint32) *Monitor { return &Monitor{program, jailer, port} }

// Name implements vmm.Monitor.
func (*Monitor) Name() string { return "firecracker" }

// jail is the folder of a machine's jails, made anew for each start by us alone: jailers follow links in folders that were made before
// (CVE-2026-1386).
func jail(dir string) string { return filepath.Join(dir, "jail") }

// jailID is a machine's id as the jailer takes it.
func jailID(id string) string { return strings.ReplaceAll(id, "_", "-") }

// root is what the monitor sees as /. It belongs to the monitor; what is above does not.
func (m *Monitor) root(c vmm.Config) string {
	return filepath.Join(jail(c.Dir), filepath.Base(m.program), jailID(c.ID), "root")
}

// Names in the jail.
const (
	apiSocket   = "api.sock"
	vsockSocket = "v.sock"
	kernelName  = "vmlinux"
	initrdName  = "initrd"
	memoryName  = "memory"
	stateName   = "state"
)

// Start implements vmm.Monitor.
func (m *Monitor) Start(ctx context.Context, c vmm.Config) (_ vmm.VM, err error) {
	if err := os.Mkdir(jail(c.Dir), 0o700); err != nil {
		return nil, err
	}
	ns := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.Namespace.Fd())
	p, err := vmm.StartProcess(c, exec.Command(m.jailer, "--id", jailID(c.ID), "--exec-file", m.program, "--uid", strconv.Itoa(c.UID), "--gid", strconv.Itoa(c.GID),
		"--chroot-base-dir", jail(c.Dir), "--netns", ns, "--", "--api-sock", "/"+apiSocket))
	if err != nil {
		return nil, err
	}
	v := m.machine(c, p)
	defer func() {
		if err != nil {
			p.Kill()
		}
	}()
	if err := v.awaitAPI(ctx); err != nil {
		return nil, err
	}
	if c.Restore != "" {
		err = v.restore(ctx)
	} else {
		err = v.boot(ctx)
	}
	if err != nil && !p.Alive() {
		err = fmt.Errorf("%w; it said: %s", err, v.Console())
	}
	return v, err
}

// Find implements vmm.Monitor.
func (m *Monitor) Find(_ context.Context, c vmm.Config) (vmm.VM, error) {
	p, err := vmm.FindProcess(c)
	if err != nil {
		return nil, err
	}
	return m.machine(c, p), nil
}

func (m *Monitor) machine(c vmm.Config, p *vmm.Process) *machine {
	root := m.root(c)
	return &machine{Process: p, c: c, root: root, port: m.port, api: newClient(filepath.Join(root, apiSocket))}
}

// Remove implements vmm.Monitor.
func (*Monitor) Remove(dir string) error { return vmm.RemoveJail(jail(dir)) }

type machine struct {
	*vmm.Process
	c    vmm.Config
	root string
	port uint32
	api  *client
	set  int // drives that were exchanged
}

// awaitAPI waits until the jailer has become Firecracker, and that answers.
func (v *machine) awaitAPI(ctx context.Context) error {
	for {
		err := v.api.do(ctx, call{method: "GET", path: "/version"})
		if err == nil {
			return nil
		}
		select {
		case <-v.Dead():
			return fmt.Errorf("the jailer ended: %s", v.Console())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(time.Millisecond):
		}
	}
}

// arguments of the kernel: no bus but the monitor's devices, and a restart of the guest is the monitor's end.
const arguments = "console=ttyS0 reboot=k panic=-1 pci=off quiet i8042.noaux i8042.nomux i8042.dumbkbd random.trust_cpu=on outpost.link=vsock "

func (v *machine) boot(ctx context.Context) error {
	if err := v.bring(v.c.Kernel, kernelName, true); err != nil {
		return err
	}
	if err := v.bring(v.c.Initrd, initrdName, true); err != nil {
		return err
	}
	calls := []call{
		{"PUT", "/machine-config", machineConfig{VCPUs: v.c.VCPUs, MemoryMB: v.c.MemoryMB}},
		{"PUT", "/boot-source", bootSource{"/" + kernelName, "/" + initrdName, arguments + v.c.Arguments}},
	}
	for _, d := range v.c.Drives {
		if err := v.bring(d.Path, d.ID, d.ReadOnly); err != nil {
			return err
		}
		cache := "Unsafe"
		if d.Durable {
			cache = "Writeback"
		}
		calls = append(calls, call{"PUT", "/drives/" + d.ID, drive{ID: d.ID, Path: "/" + d.ID, ReadOnly: d.ReadOnly, Cache: cache, Engine: "Sync"}})
	}
	return v.api.do(ctx, append(calls, call{"PUT", "/vsock", vsock{guestCID, vsockSocket}}, call{"PUT", "/actions", action{"InstanceStart"}})...)
}

// guestCID is the same in each guest: a monitor's virtual socket leads nowhere but to its own. Source: docs/vsock.md of Firecracker.
const guestCID = 3

// restore lets a guest go on from a snapshot, with its own files behind the drives of the same names.
func (v *machine) restore(ctx context.Context) error {
	for _, name := range []string{memoryName, stateName} {
		if err := v.bring(filepath.Join(v.c.Restore, name), name, true); err != nil {
			return err
		}
	}
	calls := []call{{"PUT", "/snapshot/load", snapshotLoad{Backend: memoryBackend{"/" + memoryName, "File"}, State: "/" + stateName}}}
	for _, d := range v.c.Drives {
		if err := v.bring(d.Path, d.ID, d.ReadOnly); err != nil {
			return err
		}
		if !d.ReadOnly { // another file, perhaps of another size
			calls = append(calls, call{"PATCH", "/drives/" + d.ID, driveChange{d.ID, "/" + d.ID}})
		}
	}
	return v.api.do(ctx, append(calls, call{"PATCH", "/vm", vmState{"Resumed"}})...)
}

// bring makes a file of the host one of the jail's by a hard link, so that nothing is mounted and nothing copied. What is to be written
// becomes the monitor's, what is not must not be writable for it.
func (v *machine) bring(path, name string, readOnly bool) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", path)
	}
	own := fmt.Sprintf("/proc/self/fd/%d", fd)
	if readOnly && (st.Mode()&0o022 != 0 || st.Mode()&0o004 == 0) {
		return fmt.Errorf("%s has mode %o: it must be everyone's to read and nobody's but its owner's to write", path, st.Mode().Perm())
	}
	if !readOnly {
		if err := os.Chown(own, v.c.UID, v.c.GID); err != nil {
			return err
		}
	}
	err = unix.Linkat(unix.AT_FDCWD, own, unix.AT_FDCWD, filepath.Join(v.root, name), unix.AT_SYMLINK_FOLLOW)
	if err == unix.EXDEV {
		return fmt.Errorf("%s and %s are on different file systems: a microVM's files are linked into its jail, so the data directory must be one file system", path, v.root)
	}
	if err != nil {
		return &os.LinkError{Op: "link", Old: path, New: filepath.Join(v.root, name), Err: err}
	}
	return nil
}

// Dial implements vmm.VM. Source: docs/vsock.md of Firecracker, host-initiated connections.
func (v *machine) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := vmm.DialSocket(ctx, filepath.Join(v.root, vsockSocket))
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_, err = fmt.Fprintf(conn, "CONNECT %d\n", v.port)
	if err == nil {
		var line []byte // byte by byte: what comes behind it is the keeper's
		b := make([]byte, 1)
		for err == nil && len(line) < 32 && (len(line) == 0 || line[len(line)-1] != '\n') {
			if _, err = conn.Read(b); err == nil {
				line = append(line, b[0])
			}
		}
		if err == nil && !strings.HasPrefix(string(line), "OK ") {
			err = fmt.Errorf("the virtual socket answered %q", line)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// SetDrive implements vmm.VM. Each file comes by a name of its own: the former may be in use.
func (v *machine) SetDrive(ctx context.Context, id, path string) error {
	name := ""
	for err := error(unix.EEXIST); errors.Is(err, unix.EEXIST); { // a former daemon has brought some
		v.set++
		name = fmt.Sprintf("%s-%d", id, v.set)
		if err = v.bring(path, name, true); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return v.api.do(ctx, call{"PATCH", "/drives/" + id, driveChange{id, "/" + name}})
}

// Snapshot implements vmm.VM.
func (v *machine) Snapshot(ctx context.Context, dir string) error {
	err := v.api.do(ctx, call{"PATCH", "/vm", vmState{"Paused"}},
		call{"PUT", "/snapshot/create", snapshotCreate{"/" + memoryName, "/" + stateName, "Full"}})
	if err != nil {
		return err
	}
	for _, name := range []string{memoryName, stateName} {
		if err := v.take(name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// take moves a file out of the jail, and takes it away from the monitor.
func (v *machine) take(name, to string) error {
	fd, err := unix.Open(filepath.Join(v.root, name), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("the monitor left no file %s (%v)", name, err)
	}
	if err := errors.Join(f.Chown(0, 0), f.Chmod(0o444)); err != nil {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}
