package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

type machine struct {
	e         *Engine
	spec      engine.MachineSpec
	group     host.Cgroup
	slot      int // of host ids
	base      int // the first of them
	process   *host.Process
	disk      *os.File   // the root of its file system, to shut it down; nil after a recovery
	tree      *os.File   // the mount of its disk, until the root is made of it
	line      *os.File   // see lifeline
	leased    bool       // it was made for nobody
	moved     chan error // tells that the agent is in its control group; nil once that is known
	isolation sandbox.Isolation

	mu    sync.Mutex
	first *place // parked when the machine was made, for the first exec that fits
	left  map[string]leftover
	stop  error
	once  sync.Once // of Stop
	letGo sync.Once // of what Halt gives back
}

func newMachine(e *Engine, spec engine.MachineSpec) *machine {
	return &machine{e: e, spec: spec, group: e.root.Child(spec.ID), left: map[string]leftover{}}
}

func (m *machine) dir() string { return m.e.machineDir(m.spec.ID, m.spec.Stateful) }

// Handle implements engine.Machine.
func (m *machine) Handle() engine.Handle {
	m.mu.Lock()
	defer m.mu.Unlock()
	return engine.Handle{ID: m.spec.ID, SandboxID: m.spec.SandboxID, Stateful: m.spec.Stateful}
}

// Lease implements engine.Machine.
func (m *machine) Lease(sandboxID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spec.SandboxID, m.leased = sandboxID, true
	if err := m.e.writeRecord(m.spec.ID, m.record()); err != nil {
		return err
	}
	return m.e.kernel.Yield(m.group, false)
}

// Isolation implements engine.Machine.
func (m *machine) Isolation() sandbox.Isolation {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	return m.isolation
}

// look reads what is in force while the first process waits: what is added to a machine after its start counts, too. To one that was
// leased nothing is.
func (m *machine) look() {
	if m.first != nil && !(m.leased && m.first.known != nil) {
		m.isolation = m.first.readIsolation()
		m.first.known = &m.isolation
	}
}

// Dead implements engine.Machine.
func (m *machine) Dead() <-chan struct{} { return m.process.Dead() }

// Park implements engine.Machine.
func (m *machine) Park(ctx context.Context, x engine.ExecSpec) (engine.Exec, error) {
	m.mu.Lock()
	first := m.first
	if x.Stays { // a place of its own has its name
		first = nil
	}
	fits := first != nil && first.user == x.User && sameLimits(first.limits, x.Limits)
	if fits || first != nil && first.warming != nil { // a warm one is of no use to any other
		if m.isolation.Engine == "" {
			m.look()
		}
		m.first = nil
	} else {
		first = nil
	}
	m.mu.Unlock()
	if first != nil {
		if fits && first.ready(ctx, x.Warm) {
			return first, nil
		}
		first.discard(ctx)
	}
	p, err := m.park(ctx, x)
	if err != nil {
		return nil, internal(err, "the program could not be started")
	}
	return p, nil
}

func sameLimits(a, b sandbox.Limits) bool {
	return a.MemoryMB == b.MemoryMB && a.CPUCores == b.CPUCores && a.Pids == b.Pids
}

// Halt implements engine.Machine.
func (m *machine) Halt(ctx context.Context) error {
	m.letGo.Do(func() {
		m.process.Kill()
		if m.disk != nil {
			if !m.spec.Stateful {
				_ = m.e.kernel.ShutdownExt4(m.disk) // what is dirty is never written
			}
			m.disk.Close()
			m.tree.Close()
		}
		if m.line != nil {
			m.line.Close()
		}
		m.awaitEnd()
		m.mu.Lock()
		first := m.first
		m.first = nil
		m.mu.Unlock()
		if first != nil {
			first.Close()
		}
	})
	return m.e.Halt(context.WithoutCancel(ctx), m.Handle())
}

// Stop implements engine.Machine.
func (m *machine) Stop(ctx context.Context) error {
	m.once.Do(func() {
		began := time.Now()
		if m.stop = m.Halt(ctx); m.stop == nil {
			m.stop = m.e.Remove(context.WithoutCancel(ctx), m.Handle())
		}
		if m.stop == nil {
			m.e.observe("stop", time.Since(began))
		}
	})
	return m.stop
}

// awaitEnd waits for a killed machine, and not for long for one that hangs in the kernel: Remove says what is left.
func (m *machine) awaitEnd() {
	select {
	case <-m.process.Dead():
	case <-time.After(5 * time.Second):
	}
}

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, h engine.Handle) (engine.Machine, error) {
	r, err := e.readRecord(h.ID)
	if err != nil {
		return nil, sandbox.Errorf(sandbox.Lost, err, "the machine was lost")
	}
	m := newMachine(e, r.Spec)
	m.slot, m.base = r.Slot, r.Base
	first := agentOf(m.group.Child("agent").Processes())
	if first == 0 {
		return nil, sandbox.Errorf(sandbox.Lost, nil, "the machine was lost")
	}
	if m.process, err = host.Hold(first); err != nil {
		return nil, sandbox.Errorf(sandbox.Lost, err, "the machine was lost")
	}
	e.ranges.Keep(r.Slot)
	for _, name := range m.programs().Children() { // execs that the former daemon did not see the end of
		m.reclaim(name, m.programs().Child(name), strings.HasPrefix(name, sandbox.ExecPrefix))
	}
	p, err := m.park(ctx, engine.ExecSpec{ID: sandbox.NewID("recovered_"), User: r.Spec.Security.User, Limits: r.Spec.Limits})
	if err != nil {
		return nil, sandbox.Errorf(sandbox.Lost, err, "the machine was lost")
	}
	m.first = p
	return m, nil
}

// agentOf is the one that is no child of the others, 0 for none; pids tell no age, since they are used again.
func agentOf(pids []int) int {
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "\nPPid:")
		line, _, _ := strings.Cut(rest, "\n")
		if parent, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && !slices.Contains(pids, parent) {
			return pid
		}
	}
	return 0
}

// leftover is the group of an exec that has ended, or whose end nobody saw.
type leftover struct {
	group host.Cgroup
	until time.Time // before that who follows its program may ask what it used
}

// keepGroup is how long the group of a program that stays waits for Resume.
const keepGroup = 10 * time.Minute

// reclaim removes an exec's group when nothing runs in it any more; until then it is kept in mind.
func (m *machine) reclaim(name string, g host.Cgroup, stays bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mine := leftover{group: g}
	if stays {
		mine.until = time.Now().Add(keepGroup)
	}
	m.left[name] = mine
	for name, l := range m.left {
		if time.Now().Before(l.until) {
			continue
		}
		if err := l.group.Remove(); err == nil {
			delete(m.left, name)
		}
	}
}

// removeGroup kills and removes a group; the kernel lets go of dead processes a moment later.
func removeGroup(ctx context.Context, g host.Cgroup) error {
	if !g.Exists() {
		return nil
	}
	if err := g.Kill(); err != nil {
		return err
	}
	wait := 200 * time.Microsecond
	for end := time.Now().Add(5 * time.Second); ; {
		err := g.Remove("programs/"+firstPlace, "programs", "agent")
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
			wait = min(2*wait, 20*time.Millisecond)
		}
	}
}

// listen makes the socket at which the agent is found, also by the next daemon.
func (m *machine) listen() (*os.File, error) {
	var listener *net.UnixListener
	err := m.shortPath(func(path string) (err error) {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	return listener.File()
}

const agentSocket = "agent.sock"

// shortPath names the agent's socket in less than the 108 bytes of a socket address, however long the data directory is.
func (m *machine) shortPath(f func(path string) error) error {
	dir, err := os.OpenFile(m.dir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + agentSocket)
}

// Resume implements engine.Machine.
func (m *machine) Resume(ctx context.Context, execID string) (engine.Exec, error) {
	known := m.Isolation() // its own process may be another by now
	p := &place{m: m, id: execID, group: m.programs().Child(execID), known: &known}
	p.stays.Store(true)
	m.mu.Lock()
	delete(m.left, execID)
	m.mu.Unlock()
	var err error
	if p.conn, err = m.dial(ctx); err != nil {
		p.m.reclaim(execID, p.group, true)
		return nil, err
	}
	if p.oom, err = p.group.OnOOM(); err == nil && p.oom != nil { // else the program, or its group, is gone
		go p.watchOOM()
	}
	return p, nil
}

// Call implements engine.Machine.
func (m *machine) Call(ctx context.Context) (*agent.Conn, error) { return m.dial(ctx) }

func (m *machine) dial(ctx context.Context) (*agent.Conn, error) {
	var conn net.Conn
	err := m.shortPath(func(path string) (err error) {
		conn, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, sandbox.Errorf(sandbox.Lost, err, "the machine was lost; try again")
	}
	return agent.NewConn(conn), nil
}
