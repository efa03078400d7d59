package cell

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// Rlimit is one resource limit; soft and hard are the same.
type Rlimit struct {
	Resource int
	Value    uint64
}

// Confinement is what a program is held by, beside its namespaces.
type Confinement struct {
	UID, GID int
	Groups   []int
	Caps     uint64 // Linux capabilities of root in the inner user namespace; 0 for all others
	Rlimits  []Rlimit
	Filter   []unix.SockFilter // nil: no filter
	CPUs     []int             // the processors it runs on and sees
	Join     []*os.File        // control groups, see host.Cgroup.Join
	Without  string            // tests only: a protection to leave out, to see that isolation says so
}

// Process is a program's first process. It waits, already confined, until Run says what to start.
type Process struct {
	Pid    int // in the agent's pid namespace
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	script *host.Script
	run    pipe
	pidfd  *os.File
}

// Kill ends the first process, and never another that came to have its pid.
func (p *Process) Kill() {
	if raw, err := p.pidfd.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

const scriptRoom = 16 << 20 // arguments and environment; only touched pages cost memory

// Park starts a process under the confinement that waits for Run.
func (c *Cell) Park(conf Confinement) (*Process, error) {
	s, err := host.NewScript(scriptRoom)
	if err != nil {
		return nil, err
	}
	var fds [5]pipe // stdin, stdout, stderr, run, ready
	defer func() {
		for i := range fds {
			fds[i].close()
		}
	}()
	for i := range fds {
		fds[i] = pipe{-1, -1}
		if fds[i], err = newPipe(); err != nil {
			return nil, err
		}
	}
	for _, fd := range []int{fds[0].r, fds[1].w, fds[2].w} { // so that it may open /dev/stdout anew
		if err := unix.Fchown(fd, conf.UID, conf.GID); err != nil {
			return nil, err
		}
	}
	c.write(s, conf, fds)
	p := &Process{script: s}
	forked := make(chan error)
	c.spawn <- func() {
		var err error
		p.Pid, err = s.Fork(0)
		forked <- err
	}
	if err := <-forked; err != nil {
		return nil, err
	}
	pidfd, err := unix.PidfdOpen(p.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err // it waits for a pipe that is closed now, and ends
	}
	p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	fds[4].closeWriter()
	if n, err := readByte(fds[4].r); n != 1 {
		p.pidfd.Close()
		_, _ = unix.Wait4(p.Pid, nil, 0, nil)
		return nil, fmt.Errorf("the program's first process: %w", errors.Join(s.Failed(), err))
	}
	p.Stdin, p.Stdout, p.Stderr = file(&fds[0].w, "stdin"), file(&fds[1].r, "stdout"), file(&fds[2].r, "stderr")
	p.run, fds[3] = fds[3], pipe{-1, -1}
	p.run.closeReader()
	return p, nil
}

func file(fd *int, name string) *os.File {
	_ = unix.SetNonblock(*fd, true)
	f := os.NewFile(uintptr(*fd), name)
	*fd = -1
	return f
}

// write lays out what the child does until it waits.
func (c *Cell) write(s *host.Script, conf Confinement, fds [5]pipe) {
	joinGroups(s, conf.Join)
	s.Must("enter the user namespace", unix.SYS_SETNS, c.userns.Fd(), unix.CLONE_NEWUSER)
	s.Must("enter the mount namespace", unix.SYS_SETNS, c.mntns.Fd(), unix.CLONE_NEWNS)
	if conf.Without != "cgroup_namespace" {
		s.Must("unshare the cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	s.Must("setsid", unix.SYS_SETSID)
	s.Must("stdin", unix.SYS_DUP3, uintptr(fds[0].r), 0, 0)
	s.Must("stdout", unix.SYS_DUP3, uintptr(fds[1].w), 1, 0)
	s.Must("stderr", unix.SYS_DUP3, uintptr(fds[2].w), 2, 0)
	s.Must("run pipe", unix.SYS_DUP3, uintptr(fds[3].r), 3, unix.O_CLOEXEC)
	s.Must("ready pipe", unix.SYS_DUP3, uintptr(fds[4].w), 4, unix.O_CLOEXEC)
	s.Must("close all others", unix.SYS_CLOSE_RANGE, 5, uintptr(^uint32(0)), 0)
	const joinSessionKeyring = 1
	s.May("leave the session keyring", unix.SYS_KEYCTL, joinSessionKeyring, 0)
	s.Must("umask", unix.SYS_UMASK, 0o022)
	for _, n := range ignoredSignals() {
		s.Must("heed a signal", unix.SYS_RT_SIGACTION, uintptr(n), s.Words(0, 0, 0, 0), 0, 8)
	}
	if len(conf.CPUs) > 0 {
		mask := make([]uintptr, 16) // 1024 processors
		for _, n := range conf.CPUs {
			mask[n/64%16] |= 1 << (n % 64)
		}
		s.Must("sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)*8), s.Words(mask...))
	}
	for _, r := range conf.Rlimits {
		s.Must(fmt.Sprintf("rlimit %d", r.Resource), unix.SYS_PRLIMIT64, 0, uintptr(r.Resource), s.Words(uintptr(r.Value), uintptr(r.Value)), 0)
	}
	confine(s, conf)
	s.Must("tell", unix.SYS_WRITE, 4, s.String("1"), 1)
	s.Wait("wait for what to run", 3)
	s.Exit(127) // overwritten by Run
}

// ignoredSignals are those that this process ignores, as whoever started it did: a program would inherit that through execve(2).
var ignoredSignals = sync.OnceValue(func() (all []int) {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "\nSigIgn:")
	line, _, _ := strings.Cut(rest, "\n")
	mask, _ := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	for n := range 64 {
		if mask&(1<<n) != 0 {
			all = append(all, n+1)
		}
	}
	return all
})

func joinGroups(s *host.Script, join []*os.File) {
	zero := s.String("0")
	for _, f := range join {
		s.Must("join a control group", unix.SYS_WRITE, f.Fd(), zero, 1)
	}
}

// confine gives up every power, in the one order in which that works.
func confine(s *host.Script, conf Confinement) {
	caps := conf.Caps
	if conf.UID != 0 {
		caps = 0
	}
	for n := uintptr(0); n < 64; n++ {
		if caps&(1<<n) == 0 && conf.Without != "capabilities_dropped" {
			s.May("drop a capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n) // EINVAL for those the kernel lacks
		}
	}
	s.Must("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if caps == 0 {
		const noroot, norootLocked = 1, 2 // securebits.h
		s.Must("securebits", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, noroot|norootLocked)
	}
	groups := make([]byte, 4*len(conf.Groups)+4)
	for i, g := range conf.Groups {
		*(*uint32)(unsafe.Pointer(&groups[4*i])) = uint32(g)
	}
	s.Must("setgroups", unix.SYS_SETGROUPS, uintptr(len(conf.Groups)), s.Bytes(groups))
	gid, uid := uintptr(conf.GID), uintptr(conf.UID)
	s.Must("setresgid", unix.SYS_SETRESGID, gid, gid, gid)
	s.Must("setresuid", unix.SYS_SETRESUID, uid, uid, uid)
	head := s.Words(unix.LINUX_CAPABILITY_VERSION_3) // version and pid 0, 32 bits each
	s.Must("capset", unix.SYS_CAPSET, head, s.Bytes(capSets(uint32(caps), uint32(caps>>32))))
	s.Must("no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if conf.Filter != nil {
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&conf.Filter[0])), len(conf.Filter)*8)
		prog := s.Words(uintptr(len(conf.Filter)), s.Bytes(raw)) // struct sock_fprog: u16 and padding, pointer
		const setModeFilter = 1
		s.Must("seccomp", unix.SYS_SECCOMP, setModeFilter, 0, prog)
	}
}

// capSets is struct __user_cap_data_struct[2] with permitted and effective the same and nothing inheritable.
func capSets(low, high uint32) []byte {
	w := [6]uint32{low, low, 0, high, high, 0}
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&w)), 24)...)
}

// Program says what a parked process becomes.
type Program struct {
	Paths []string // tried in order
	Argv  []string
	Env   []string
	Dir   string

	Terminal string // its standard streams become this terminal, which becomes that of its session; "": they stay
}

// ErrTooLong means that arguments and environment together don't fit.
var ErrTooLong = errors.New("argument list too long")

// Run lets the parked process become the program. Whether it could start is known by Wait.
func (p *Process) Run(prog Program) error {
	size := 1 << 12
	for _, list := range [][]string{prog.Argv, prog.Env, prog.Paths, {prog.Dir, prog.Terminal}} {
		for _, v := range list {
			size += len(v) + 24
		}
	}
	if size > p.script.Room() {
		return ErrTooLong
	}
	s := p.script
	s.Reopen()
	s.Must("chdir", unix.SYS_CHDIR, s.String(prog.Dir))
	if prog.Terminal != "" { // opened by the first process of a session without one: source tty(4), TIOCSCTTY in ioctl_tty(2)
		const next = 5 // the descriptors below it are open
		here := unix.AT_FDCWD
		s.Must("open the terminal", unix.SYS_OPENAT, uintptr(here), s.String(prog.Terminal), unix.O_RDWR, 0)
		for fd := range uintptr(3) {
			s.Must("the terminal's streams", unix.SYS_DUP3, next, fd, 0)
		}
		s.Must("close the terminal", unix.SYS_CLOSE, next)
	}
	argv, envp := s.Strings(prog.Argv), s.Strings(prog.Env)
	for _, path := range prog.Paths {
		s.Exec(path, argv, envp)
	}
	s.Exit(127)
	_, err := unix.Write(p.run.w, []byte{1})
	p.run.closeWriter()
	return err
}

// Ended is how a program ended.
type Ended struct {
	Code    int         // exit code, 128+n for a signal
	Signal  unix.Signal // 0 for none
	NoStart error       // why no program ran, an errno; nil if one did
}

// Wait returns when the first process is gone. It is called once; Kill may be called until Close.
func (p *Process) Wait() Ended {
	if raw, err := p.pidfd.SyscallConn(); err == nil { // so that a program that runs costs the agent no thread
		_ = raw.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n == 1
		})
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(p.Pid, &status, 0, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.run.close()
	e := Ended{Code: status.ExitStatus()}
	if status.Signaled() {
		e.Signal = status.Signal()
		e.Code = 128 + int(e.Signal)
	}
	if err := p.script.Failed(); err != nil {
		e.NoStart = err
	} else {
		e.NoStart = p.script.ExecFailed()
	}
	return e
}

// Close gives back what the process, which is gone, was held by; its pipes are the caller's.
func (p *Process) Close() {
	p.pidfd.Close()
	p.script.Close()
}

// ClosePipes is for a process that never ran a program; else who reads and writes them closes them.
func (p *Process) ClosePipes() {
	for _, f := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		f.Close()
	}
}
