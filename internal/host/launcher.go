package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Agents are started by a launcher: a process of the agent's own program that does nothing else. A process that is born into a new user
// namespace can't be a vfork, since its parent writes its id maps, so the kernel copies the page tables of whoever starts it, and each page
// that the starter writes to from then on: that is dear for a daemon that holds much, and cheap for the launcher.

// LauncherName is what the program of agents is called by when it is started as a launcher: it then calls ServeLauncher.
const LauncherName = "launcher"

// launchRequest asks for an agent; its descriptors come with it. launchReply tells of it; its pidfd comes with it.
type (
	launchRequest struct {
		Env         []string
		BaseID, IDs int
	}
	launchReply struct {
		Pid   int
		Errno syscall.Errno
		Error string // what has no number
	}
)

// Launcher is the daemon's side. It starts the process at the first need, and another where that has ended.
type Launcher struct {
	exe   *os.File
	group Cgroup

	mu   sync.Mutex
	conn *net.UnixConn // nil: none runs
	proc *Process
}

// launchTime is how long a launcher may take to answer: it has nothing to wait for.
const launchTime = 10 * time.Second

// NewLauncher names the program of agents, and the group that the launcher lives in, so that the processor time of both counts as the
// installation's. The group is there.
func NewLauncher(exe *os.File, group Cgroup) *Launcher { return &Launcher{exe: exe, group: group} }

// Close ends the launcher; agents go on.
func (l *Launcher) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

func (l *Launcher) end() {
	if l.conn == nil {
		return
	}
	l.conn.Close()
	l.proc.Kill()
	select {
	case <-l.proc.Dead():
	case <-time.After(time.Second):
	}
	l.conn, l.proc = nil, nil
}

// launch asks the launcher. Where that has ended before it could hear of it, another is asked.
func (l *Launcher) launch(a AgentProcess) (*Process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for try := 0; ; try++ {
		if l.conn == nil {
			if err := l.start(); err != nil {
				return nil, fmt.Errorf("the launcher: %w", err)
			}
		}
		p, err := l.ask(a)
		if errors.Is(err, errDeaf) || errors.Is(err, errDumb) {
			l.end()
		}
		if !errors.Is(err, errDeaf) || try > 0 {
			return p, err
		}
	}
}

var (
	errDeaf = errors.New("the launcher has ended")
	errDumb = errors.New("the launcher did not answer") // it may have started the agent, which ends when its lifeline does
)

// start starts a launcher that ends with this process.
func (l *Launcher) start() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "launcher"), os.NewFile(uintptr(fds[1]), "launcher")
	defer ours.Close()
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", l.exe.Fd()), []string{LauncherName}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1", "GOGC=25"}, Files: []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd(), theirs.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	proc, err := Hold(pid)
	if err != nil {
		return err
	}
	conn, err := net.FileConn(ours)
	if err == nil {
		err = l.group.add(pid)
	}
	if err != nil {
		proc.Kill()
		return err
	}
	l.conn, l.proc = conn.(*net.UnixConn), proc
	return nil
}

// maxLaunch bounds a message between the two.
const maxLaunch = 4 << 10

func (l *Launcher) ask(a AgentProcess) (*Process, error) {
	b, err := json.Marshal(launchRequest{a.Env, a.BaseID, a.IDs})
	if err != nil {
		return nil, err
	}
	fds := make([]int, len(a.Files))
	for i, f := range a.Files {
		fds[i] = int(f.Fd())
	}
	_ = l.conn.SetDeadline(time.Now().Add(launchTime))
	if _, _, err := l.conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil); err != nil {
		return nil, errDeaf
	}
	var r launchReply
	files, err := readLaunch(l.conn, &r)
	switch {
	case err != nil:
		return nil, errDumb
	case r.Errno != 0:
		return nil, r.Errno
	case r.Error != "" || len(files) != 1:
		return nil, fmt.Errorf("the launcher says %q", r.Error)
	}
	return held(r.Pid, files[0]), nil
}

func readLaunch(conn *net.UnixConn, v any) (fds []int, err error) {
	b, oob := make([]byte, maxLaunch), make([]byte, unix.CmsgSpace(4*16))
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil || n == 0 {
		return nil, net.ErrClosed
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		more, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range more {
			unix.CloseOnExec(fd)
		}
		fds = append(fds, more...)
	}
	return fds, json.Unmarshal(b[:n], v)
}

// ServeLauncher starts agents for the daemon at the other end of a socket, until that is gone.
func ServeLauncher(socket *os.File) error {
	signal.Ignore(syscall.SIGCHLD) // the kernel reaps
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	c, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	socket.Close()
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("a launcher's socket is a Unix socket")
	}
	for {
		var r launchRequest
		fds, err := readLaunch(conn, &r)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answerLaunch(conn, r, fds); err != nil {
			return err
		}
	}
}

func answerLaunch(conn *net.UnixConn, r launchRequest, fds []int) error {
	files := make([]uintptr, len(fds))
	for i, fd := range fds {
		files[i] = uintptr(fd)
	}
	pid, pidfd, err := startAgent("/proc/self/exe", r, files)
	for _, fd := range fds {
		unix.Close(fd)
	}
	reply := launchReply{Pid: pid}
	var with []byte
	if err == nil {
		with = unix.UnixRights(pidfd)
		defer unix.Close(pidfd)
	} else if !errors.As(err, &reply.Errno) {
		reply.Error = err.Error()
	}
	b, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	_, _, err = conn.WriteMsgUnix(b, with, nil)
	return err
}
