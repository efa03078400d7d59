package cell

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// RootDir is where the agent sees the programs' root, in its own mount namespace.
const RootDir = "/root"

// maxTerminals is how many one machine may have: the kernel's own number (kernel.pty.max less its reserve, 3072) is for all machines of a
// host together. Source: Documentation/admin-guide/sysctl/kernel.rst.
const maxTerminals = "max=16"

// Root says how the programs' root is furnished.
type Root struct {
	Hostname string
	ShmBytes int64               // size of /dev/shm; it counts as the programs' memory
	CPUs     int                 // how many processors /sys shows
	Devices  map[string]*os.File // trees of device nodes beside the usual ones, by their name below /dev
}

// IsDevice says whether a path is below /dev, where nothing can be put once the root is furnished.
func IsDevice(path string) bool { return strings.HasPrefix(path, "/dev/") }

// Furnish gives the agent a root of its own with nothing of the host in it, puts the detached tree at RootDir and fills
// in /dev and /sys. It must run in a mount namespace that the agent owns; anything mounted there before is gone.
func Furnish(tree *os.File, r Root) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// proc first: the kernel allows a new one only where an old one is fully visible.
	proc, err := host.FsMount("proc", "", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("mount proc (a container runtime's masks on /proc forbid it: run with an unmasked /proc): %w", err)
	}
	nodes := map[string]*os.File{}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/"+name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("/dev/%s: %w", name, err)
		}
		nodes[name] = os.NewFile(uintptr(fd), name)
	}
	for name, tree := range r.Devices {
		if nodes[name] != nil {
			return fmt.Errorf("/dev/%s is every machine's", name)
		}
		nodes[name] = tree
	}
	if err := enter(proc, tree); err != nil {
		return err
	}
	if err := places(); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/self/comm", []byte("outpost-agent"), 0) // for the host's ps; it was started by a descriptor's number
	if err := devices(nodes, r.ShmBytes); err != nil {
		return err
	}
	if err := processors(r.CPUs); err != nil {
		return err
	}
	return network(r.Hostname)
}

// enter makes a small tmpfs the root of the agent and drops everything else.
func enter(proc, tree *os.File) error {
	own, err := host.FsMount("tmpfs", "", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "size=1m", "mode=755")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := host.AttachTree(own, "/proc"); err != nil { // any directory that every host has
		return err
	}
	if err := unix.Chdir("/proc"); err != nil {
		return err
	}
	for _, d := range []string{"proc", "root"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if err := host.AttachTree(proc, "proc"); err != nil {
		return err
	}
	if err := host.AttachTree(tree, "root"); err != nil {
		return err
	}
	proc.Close()
	tree.Close()
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount the host's root: %w", err)
	}
	return unix.Chdir("/")
}

func devices(nodes map[string]*os.File, shm int64) error {
	dev := RootDir + "/dev"
	if err := mountAt(dev, "tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "size=64k", "mode=755", "uid=0", "gid=0"); err != nil {
		return err
	}
	for name, tree := range nodes {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dev, name)), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(dev, name), os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		f.Close()
		if err := host.AttachTree(tree, filepath.Join(dev, name)); err != nil {
			return fmt.Errorf("/dev/%s: %w", name, err)
		}
		tree.Close()
	}
	for _, d := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dev, d), 0o755); err != nil {
			return err
		}
	}
	if err := mountAt(dev+"/pts", "devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "newinstance", maxTerminals, "ptmxmode=0666", "mode=0620", "gid=5"); err != nil {
		return err
	}
	size := "size=" + strconv.FormatInt(shm, 10)
	if err := mountAt(dev+"/shm", "tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, size, "mode=1777", "uid=0", "gid=0"); err != nil {
		return err
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return readOnly(dev)
}

// processors makes a /sys that tells how many processors there are, and nothing else of the host.
func processors(n int) error {
	sys := RootDir + "/sys"
	if err := mountAt(sys, "tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "size=64k", "mode=755", "uid=0", "gid=0"); err != nil {
		return err
	}
	cpu := sys + "/devices/system/cpu"
	list := "0\n"
	if n > 1 {
		list = fmt.Sprintf("0-%d\n", n-1)
	}
	for i := range max(n, 1) {
		if err := os.MkdirAll(fmt.Sprintf("%s/cpu%d", cpu, i), 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"online", "possible", "present"} {
		if err := os.WriteFile(filepath.Join(cpu, f), []byte(list), 0o444); err != nil {
			return err
		}
	}
	return readOnly(sys)
}

// Shut makes the root read-only but for some directories of it, which must be there and keep what is mounted below them.
func Shut(writable []string) error {
	root, err := os.Open(RootDir)
	if err != nil {
		return err
	}
	defer root.Close()
	type hole struct{ at, tree int }
	var holes []hole
	defer func() {
		for _, h := range holes {
			unix.Close(h.at)
			unix.Close(h.tree)
		}
	}()
	for _, dir := range writable { // an image may have a link there
		at, err := unix.Openat2(int(root.Fd()), dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		tree, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
		if err != nil {
			unix.Close(at)
			return fmt.Errorf("%s: %w", dir, err)
		}
		holes = append(holes, hole{at, tree})
	}
	if err := readOnly(RootDir); err != nil {
		return err
	}
	for i, h := range holes {
		if err := unix.MoveMount(h.tree, "", h.at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
			return fmt.Errorf("%s: %w", writable[i], err)
		}
	}
	return nil
}

// places makes what is mounted on, where an image lacks it or has something else there.
func places() error {
	for _, name := range []string{"dev", "proc", "sys"} {
		at := filepath.Join(RootDir, name)
		if st, err := os.Lstat(at); err == nil && st.IsDir() {
			continue
		} else if err == nil {
			if err := os.Remove(at); err != nil {
				return err
			}
		}
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// network names the machine, brings its loopback up and lets programs bind low ports and ping, for which they'd else
// need a power over the network namespace.
func network(hostname string) error {
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	for file, value := range map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 65535"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+file, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s: %w", file, err)
		}
	}
	return nil
}

func mountAt(path, fstype string, attr int, options ...string) error {
	m, err := host.FsMount(fstype, "", attr, options...)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer m.Close()
	return host.AttachTree(m, path)
}

func readOnly(path string) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}
