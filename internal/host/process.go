package host

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AgentProcess says how an agent is started.
type AgentProcess struct {
	Env    []string
	Files  []*os.File // its descriptors from 0 on
	BaseID int        // the first of its host ids
	IDs    int        // how many its programs have; the agent is the one above
}

// StartAgent starts an agent in new user, pid, mount, network, ipc and uts namespaces, with every capability there and
// none on the host. It is not bound to the caller's life.
func (k *Kernel) StartAgent(l *Launcher, a AgentProcess) (*Process, error) {
	if err := k.enter("start the agent"); err != nil {
		return nil, err
	}
	p, err := l.launch(a)
	return p, step("start the agent", err)
}

// startAgent does so from this process, and gives a pidfd.
func startAgent(exe string, a launchRequest, files []uintptr) (pid, pidfd int, err error) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: a.BaseID, Size: a.IDs}, {ContainerID: a.IDs, HostID: a.BaseID + a.IDs, Size: 1}}
	caps := make([]uintptr, lastCapability()+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   a.Env,
		Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			UidMappings:                ids,
			GidMappings:                ids,
			GidMappingsEnableSetgroups: true,
			Credential:                 &syscall.Credential{Uid: uint32(a.IDs), Gid: uint32(a.IDs)},
			AmbientCaps:                caps,
			Setsid:                     true,
			PidFD:                      &pidfd,
		},
	}
	err = asOwner(a.BaseID+a.IDs, func() (err error) {
		defer stayHere()()
		pid, err = syscall.ForkExec(exe, []string{"init"}, attr)
		return err
	})
	return pid, pidfd, err
}

// stayHere binds the calling thread, and what it starts, to the processor it is on, until the function it gives is called.
func stayHere() (leave func()) {
	var all, one unix.CPUSet
	var here int
	_, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&here)), 0, 0)
	if errno != 0 || unix.SchedGetaffinity(0, &all) != nil {
		return func() {}
	}
	one.Set(here)
	_ = unix.SchedSetaffinity(0, &one)
	return func() { _ = unix.SchedSetaffinity(0, &all) }
}

// FirstID is the host id that is 0 in the user namespace of a process; -1 where that can't be told.
func FirstID(pid int) int {
	text, err := readFile(fmt.Sprintf("/proc/%d/uid_map", pid))
	var inside, outside int
	if _, bad := fmt.Sscan(text, &inside, &outside); err != nil || bad != nil || inside != 0 {
		return -1
	}
	return outside
}

// asOwner runs f with a host id as the effective one, which then owns the user namespaces that f makes. What the kernel
// counts for each user (inotify instances: 128) is counted for the owners of all namespaces above, too: were that root,
// one machine could take all of it away from the host and from every other machine.
// Source: inc_ucount in kernel/ucount.c, create_user_ns in kernel/user_namespace.c.
func asOwner(id int, f func() error) error {
	runtime.LockOSThread()
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(id), same); errno != 0 { // of this thread alone
		runtime.UnlockOSThread()
		return errno
	}
	defer func() {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, 0, same); errno == 0 {
			runtime.UnlockOSThread() // else the thread ends with its goroutine
		}
	}()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return err
	}
	for i := range caps { // which the change of the id took away
		caps[i].Effective = caps[i].Permitted
	}
	if err := unix.Capset(&head, &caps[0]); err != nil {
		return err
	}
	return f()
}

func lastCapability() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	n, err := strconv.Atoi(string(b[:len(b)-1]))
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	return n
}

// KeepFiles sees to it that no descriptor which this process was started with is handed on to what it starts: a pipe or a
// socket of its supervisor would be in every machine. Source: close_range(2), CLOSE_RANGE_CLOEXEC, kernel 5.11.
func KeepFiles() error {
	return step("close_range", unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC))
}

// SealedFile is an executable in memory that nobody can change.
func SealedFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before kernel 6.3 every memfd could be executed
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, step("memfd_create", err)
	}
	// High, so that a child's own descriptors don't cover it before it is executed.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 512)
	unix.Close(fd)
	if err != nil {
		return nil, step("dup", err)
	}
	f := os.NewFile(uintptr(high), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, step("seal", err)
	}
	return f, nil
}

// Process is held by a pidfd, so that its pid can't come to mean another one.
type Process struct {
	Pid  int
	fd   *os.File
	dead chan struct{}
}

// Hold takes hold of a process and watches for its end.
func Hold(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, step("pidfd_open", err)
	}
	return held(pid, fd), nil
}

func held(pid, pidfd int) *Process {
	_ = unix.SetNonblock(pidfd, true) // for Go's poller; a pidfd takes it
	p := &Process{Pid: pid, fd: os.NewFile(uintptr(pidfd), "pidfd"), dead: make(chan struct{})}
	go p.watch()
	return p
}

func (p *Process) watch() {
	if raw, err := p.fd.SyscallConn(); err == nil {
		_ = raw.Read(func(fd uintptr) bool {
			polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(polled, 0)
			return n == 1
		})
	}
	if raw, err := p.fd.SyscallConn(); err == nil { // a child of ours is reaped, any other is its parent's
		_ = raw.Control(func(fd uintptr) { _ = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG, nil) })
	}
	close(p.dead)
	p.fd.Close() // whoever asks from now on hears that it is not alive
}

// Alive asks the kernel.
func (p *Process) Alive() bool {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	_ = raw.Control(func(fd uintptr) {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, 0)
		alive = err == nil && n == 0
	})
	return alive
}

// Dead is closed when the process has ended.
func (p *Process) Dead() <-chan struct{} { return p.dead }

// Kill sends SIGKILL.
func (p *Process) Kill() {
	raw, err := p.fd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
}
