// Package cell is what a program is put into: namespaces of its own inside those of the machine, a root, limits, a
// seccomp filter. The agent makes it, in a container and in a microVM alike; nothing here knows of HTTP or engines.
//
// There are two nested pairs of user and pid namespaces (docs/decisions/0003). The agent is pid 1 of the outer pair;
// programs live in the inner one, so that even their root can't signal, trace or see the agent. Their pid 1 is the
// reaper, a fork of the agent that only sleeps: it is not dumpable and its memory belongs to the outer user namespace,
// so no program can trace it either. Programs are children of the agent, so that how they end can't be forged.
package cell

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// Ids is how many user and group ids programs have: 0 to 65535. The agent is the one above, AgentID, which they can't name.
const (
	Ids     = 65536
	AgentID = Ids
)

// Cell is a place for programs; it lives as long as the agent.
type Cell struct {
	userns, mntns *os.File
	spawn         chan func()
}

// Start makes the inner namespaces around the tree at root (a mount point) with the reaper as their first process, which
// joins the control groups whose cgroup.procs are given.
func Start(root string, join []*os.File) (*Cell, error) {
	pid, err := startReaper(root, join)
	if err != nil {
		return nil, err
	}
	c := &Cell{spawn: make(chan func())}
	if c.userns, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", pid)); err != nil {
		return nil, err
	}
	if c.mntns, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil {
		return nil, err
	}
	pidns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	defer pidns.Close()
	ready := make(chan error)
	go c.spawner(pidns, ready)
	return c, <-ready
}

// spawner is the one thread whose children are born in the inner pid namespace.
func (c *Cell) spawner(pidns *os.File, ready chan<- error) {
	runtime.LockOSThread()
	ready <- unix.Setns(int(pidns.Fd()), unix.CLONE_NEWPID)
	for f := range c.spawn {
		f()
	}
}

// masked are files that tell of the host or control it: they read as empty.
var masked = []string{
	"kcore", "keys", "key-users", "kmsg", "kallsyms", "config.gz", "timer_list", "sched_debug", "latency_stats", "cmdline",
	"interrupts", "softirqs", "iomem", "ioports", "slabinfo", "vmallocinfo", "pagetypeinfo", "zoneinfo", "diskstats",
	"partitions", "mdstat", "modules", "swaps", "consoles", "dma", "locks", "sysrq-trigger",
}

var maskedDirs = []string{"acpi", "asound", "scsi", "driver", "tty", "bus", "fs", "irq", "pressure", "dynamic_debug", "sys/kernel/keys"}

// startReaper forks the reaper and answers its pid when its mounts stand.
func startReaper(root string, join []*os.File) (int, error) {
	s, err := host.NewScript(1 << 16)
	if err != nil {
		return 0, err
	}
	mapped, ready, err := pipes()
	if err != nil {
		return 0, err
	}
	defer mapped.close()
	defer ready.close()

	joinGroups(s, join)
	s.Wait("wait for the id maps", mapped.r)
	s.Must("prctl(PR_SET_DUMPABLE)", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	s.Must("setsid", unix.SYS_SETSID)
	s.Must("prctl(PR_SET_NAME)", unix.SYS_PRCTL, unix.PR_SET_NAME, s.String("init")) // as ps shows it to programs
	at := s.String(root)
	mount := func(source, target, fstype string, flags uintptr, must bool) {
		add := s.May
		if must {
			add = s.Must
		}
		add("mount "+target, unix.SYS_MOUNT, s.String(source), s.String(target), s.String(fstype), flags, 0)
	}
	// A mount that came from a more privileged namespace is locked; a recursive bind of it is not, so it can become the root.
	s.Must("bind the root", unix.SYS_MOUNT, at, at, 0, unix.MS_BIND|unix.MS_REC, 0)
	const shut = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mount("proc", root+"/proc", "proc", shut, true)
	for _, name := range masked {
		if _, err := os.Stat("/proc/" + name); err == nil {
			mount(root+"/dev/null", root+"/proc/"+name, "", unix.MS_BIND, true)
		}
	}
	empty := "" // one file system for all of them
	for _, name := range maskedDirs {
		if _, err := os.Stat("/proc/" + name); err != nil {
			continue
		}
		at := root + "/proc/" + name
		if empty == "" {
			empty = at
			mount("tmpfs", at, "tmpfs", shut|unix.MS_RDONLY, true)
		} else {
			mount(empty, at, "", unix.MS_BIND, true)
		}
	}
	mount(root+"/proc/sys", root+"/proc/sys", "", unix.MS_BIND|unix.MS_REC, true)
	mount("", root+"/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|shut, true)
	dot := s.String(".")
	s.Must("chdir to the root", unix.SYS_CHDIR, at)
	s.Must("pivot_root", unix.SYS_PIVOT_ROOT, dot, dot)
	s.Must("umount the old root", unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	s.Must("chdir to /", unix.SYS_CHDIR, s.String("/"))
	const sigIgn, sigchld = 1, uintptr(unix.SIGCHLD)
	s.Must("ignore SIGCHLD", unix.SYS_RT_SIGACTION, sigchld, s.Words(sigIgn, 0, 0, 0), 0, 8) // the kernel reaps
	s.Must("block signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, s.Words(^uintptr(0)), 0, 8)
	s.Must("tell", unix.SYS_WRITE, uintptr(ready.w), s.String("1"), 1)
	s.Must("close all", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
	s.Sleep()

	pid, err := s.Fork(unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS)
	if err != nil {
		return 0, err
	}
	ids := []byte(fmt.Sprintf("0 0 %d\n", Ids))
	for _, file := range []string{"gid_map", "uid_map"} {
		if err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/"+file, ids, 0); err != nil {
			return 0, err
		}
	}
	if _, err := unix.Write(mapped.w, []byte{1}); err != nil {
		return 0, err
	}
	ready.closeWriter()
	if n, err := readByte(ready.r); n != 1 {
		return 0, fmt.Errorf("the reaper: %w (%v)", s.Failed(), err)
	}
	return pid, nil
}

// pipe's descriptors are above 64, so that a script can put others below.
type pipe struct{ r, w int }

func newPipe() (pipe, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return pipe{}, err
	}
	for i, fd := range p {
		high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 64)
		if err != nil {
			return pipe{}, err
		}
		unix.Close(fd)
		p[i] = high
	}
	return pipe{p[0], p[1]}, nil
}

func pipes() (a, b pipe, err error) {
	if a, err = newPipe(); err != nil {
		return a, b, err
	}
	b, err = newPipe()
	return a, b, err
}

func (p *pipe) closeReader() { closeOnce(&p.r) }
func (p *pipe) closeWriter() { closeOnce(&p.w) }
func (p *pipe) close()       { p.closeReader(); p.closeWriter() }

func closeOnce(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}

func readByte(fd int) (int, error) {
	for {
		n, err := unix.Read(fd, make([]byte, 1))
		if err != unix.EINTR {
			return n, err
		}
	}
}
