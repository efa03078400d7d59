package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/cell"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

const (
	agentMemory = 256 << 20 // 150 KB for each of a thousand execs at once, and a request of up to 12 MiB while it is decoded
	agentPids   = 256       // its threads
	startLimit  = 30 * time.Second
	parkLimit   = 10 * time.Second
)

// Start implements engine.Engine.
func (e *Engine) Start(ctx context.Context, spec engine.MachineSpec) (engine.Machine, error) {
	m := newMachine(e, spec)
	begin := m.begin(spec.Again)
	if spec.Blank != nil {
		m = spec.Blank.(blank).machine
		m.spec = spec
		begin = []phase{{"lease", m.leaseBlank}}
		if m.tree == nil {
			begin = append(begin, phase{"disk", m.mountDisk})
		}
	}
	rest := []phase{{"furnish", m.furnish}, {"park", m.parkFirst}, {"settle", m.settle}}
	if err := m.make(ctx, append(begin, rest...)); err != nil {
		return nil, err
	}
	return m, nil
}

// make goes through phases, and takes all back where one fails.
func (m *machine) make(ctx context.Context, phases []phase) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var undo host.Undo
	defer undo.Run()
	for _, p := range phases {
		if err := p.run(ctx, m.e, &undo); err != nil {
			return internal(err, "the machine could not be made")
		}
	}
	undo.Keep()
	return nil
}

// begin are the phases that need no image.
func (m *machine) begin(again bool) []phase {
	claim, second := m.claim, []phase{{"groups", m.makeGroups}, {"disk", m.makeDisk}}
	switch {
	case m.spec.Disk != "": // all that a machine left is on it
		second[1].do = m.mountDisk
	case again:
		claim, second[1].do = m.claimAgain, m.mountDisk
	case m.spec.Limits.DiskMB == 0: // a blank's comes with its lease
		second = second[:1]
	}
	apart := m.together([]phase{{"agent", m.startAgent}}, second)
	return []phase{{"claim", claim}, {"", apart}, {"", m.moveAgent}}
}

// phase is a step of a machine's making.
type phase struct {
	name string // as it is observed; "": it is not
	do   func(context.Context, *host.Undo) error
}

func (p phase) run(ctx context.Context, e *Engine, undo *host.Undo) error {
	began := time.Now()
	err := p.do(ctx, undo)
	if err == nil && p.name != "" {
		e.observe(p.name, time.Since(began))
	}
	return err
}

// together runs rows of phases at once, each row in its order, and returns when all have ended.
func (m *machine) together(rows ...[]phase) func(context.Context, *host.Undo) error {
	return func(ctx context.Context, undo *host.Undo) error {
		failed := make([]error, len(rows))
		var all sync.WaitGroup
		for i, row := range rows {
			all.Go(func() {
				for _, p := range row {
					if failed[i] = p.run(ctx, m.e, undo); failed[i] != nil {
						return
					}
				}
			})
		}
		all.Wait()
		return errors.Join(failed...)
	}
}

// claim takes host ids and writes the record, before anything is made that a name can't tell.
func (m *machine) claim(_ context.Context, undo *host.Undo) error {
	slot, err := m.e.ranges.Take()
	if err != nil {
		return err
	}
	m.slot, m.base = slot, m.e.ranges.Base(slot)
	undo.Add(func() {
		m.e.kernel.Undo(func() {
			if !m.group.Exists() { // else a process of it does not die, and its record and host ids stay for the sweep
				_ = m.e.removeDirs(m.spec.ID)
				m.e.ranges.Free(slot)
			}
		})
	})
	if err := m.makeDirs(); err != nil {
		return err
	}
	return m.e.writeRecord(m.spec.ID, m.record())
}

func (m *machine) makeDirs() error {
	if m.spec.Stateful && (!m.spec.Again || m.spec.Disk != "") {
		if err := m.e.kernel.MakeDir(m.dir()); err != nil {
			return err
		}
	}
	return m.e.kernel.MakeDir(m.e.mountDir(m.spec.ID))
}

func (m *machine) record() record {
	return record{SandboxID: m.spec.SandboxID, Stateful: m.spec.Stateful, Slot: m.slot, Base: m.base, Spec: m.spec}
}

// claimAgain takes over what a halted machine left: its host ids, layers and disk.
func (m *machine) claimAgain(_ context.Context, undo *host.Undo) error {
	r, err := m.e.readRecord(m.spec.ID)
	if err == nil {
		_, err = os.Stat(m.e.diskPath(m.spec.ID))
	}
	if err != nil {
		return sandbox.Errorf(sandbox.Lost, err, "the sandbox's files are gone: delete it and create it anew")
	}
	if m.group.Exists() {
		return fmt.Errorf("machine %s is not halted", m.spec.ID)
	}
	m.slot, m.base = r.Slot, r.Base
	m.e.ranges.Keep(r.Slot)
	m.spec.Layers = r.Spec.Layers // those that its disk was made over
	if err := m.e.unmountAll(m.spec.ID); err != nil {
		return err
	}
	if err := removeDir(m.e.mountDir(m.spec.ID)); err != nil {
		return err
	}
	if err := m.makeDirs(); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(m.dir(), agentSocket)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return m.e.writeRecord(m.spec.ID, m.record())
}

// makeGroups: the agent is a sibling of what limits the programs, so that it is never starved with them.
func (m *machine) makeGroups(ctx context.Context, undo *host.Undo) error {
	k := m.e.kernel
	undo.Add(func() { k.Undo(func() { _ = removeGroup(context.WithoutCancel(ctx), m.group) }) })
	if err := k.MakeCgroup(m.group, true, host.CgroupLimits{}); err != nil {
		return err
	}
	if m.spec.SandboxID == engine.Pooled { // who makes it ahead is not in the way of those who run
		if err := k.Yield(m.group, true); err != nil {
			return err
		}
	}
	if err := k.MakeCgroup(m.group.Child("agent"), false, host.CgroupLimits{MemoryBytes: agentMemory, Pids: agentPids}); err != nil {
		return err
	}
	if err := k.MakeCgroup(m.programs(), true, m.e.limits(m.spec.Limits)); err != nil {
		return err
	}
	go m.e.groups.Warm() // not earlier: it would hold up the making of groups
	return nil
}

func (m *machine) programs() host.Cgroup { return m.group.Child("programs") }

func (e *Engine) limits(l sandbox.Limits) host.CgroupLimits {
	c := host.CgroupLimits{MemoryBytes: int64(l.MemoryMB) << 20, CPUMillis: int(l.CPUCores*1000 + 0.5), Pids: l.Pids}
	switch e.broken {
	case "memory_limit":
		c.MemoryBytes = 0
	case "cpu_limit":
		c.CPUMillis = 0
	case "pids_limit":
		c.Pids = 0
	}
	return c
}

// makeDisk makes the machine's own file system and attaches it to its folder.
func (m *machine) makeDisk(ctx context.Context, undo *host.Undo) error {
	k, path := m.e.kernel, m.e.diskPath(m.spec.ID)
	undo.Add(func() { k.Undo(func() { _ = os.Remove(path) }) })
	if err := k.Enter("make disk"); err != nil {
		return err
	}
	if err := m.e.maker.Make(ctx, path, m.spec.Limits.DiskMB, m.spec.Stateful); err != nil {
		return err
	}
	return m.mountDisk(ctx, undo)
}

func (m *machine) mountDisk(ctx context.Context, undo *host.Undo) (err error) {
	k := m.e.kernel
	device := m.spec.Disk
	if device == "" {
		device = m.e.diskPath(m.spec.ID)
	}
	if m.spec.Again {
		if err := free(ctx, device); err != nil {
			return err
		}
	}
	options := []string{"noinit_itable"}
	if !m.spec.Stateful {
		options = append(options, "barrier=0", "noload")
	}
	if device == engine.InMemory {
		m.tree, err = k.MemoryTree()
	} else {
		m.tree, err = k.MountExt4(device, options...)
	}
	if err != nil {
		return err
	}
	undo.Add(func() { m.tree.Close() })
	if !m.e.afloat {
		if err := m.attachDisk(undo); err != nil {
			return err
		}
	}
	if m.disk, err = host.OpenFolder(m.tree, "."); err != nil {
		return err
	}
	undo.Add(func() { m.disk.Close() })
	for _, name := range []string{"upper", "work"} {
		if err := unix.Mkdirat(int(m.disk.Fd()), name, 0o755); err != nil && err != unix.EEXIST {
			return err
		}
	}
	if m.spec.Again {
		return nil
	}
	return unix.Fchownat(int(m.disk.Fd()), "upper", m.base, m.base, unix.AT_SYMLINK_NOFOLLOW)
}

func (m *machine) attachDisk(undo *host.Undo) error {
	at := filepath.Join(m.e.mountDir(m.spec.ID), "d")
	if err := os.Mkdir(at, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	undo.Add(func() { m.e.kernel.Undo(func() { _ = m.e.unmountAll(m.spec.ID) }) })
	return m.e.kernel.Attach(m.tree, at)
}

// agentEnv: an agent has little to do at once, and threads on other processors cost it more than they bring, in wake-ups and
// in pages that must be flushed there when it forks. Of memory it has a few hundred KB live, which matters more than speed.
var agentEnv = sync.OnceValue(func() []string {
	var mine []string
	for _, n := range allowed() {
		mine = append(mine, strconv.Itoa(n))
	}
	return []string{"GOMAXPROCS=1", "GOGC=25", "GOMEMLIMIT=48MiB", agent.Processors + "=" + strings.Join(mine, ",")}
})

// startAgent starts the machine's first process. It waits for its setup.
func (m *machine) startAgent(ctx context.Context, undo *host.Undo) error {
	listener, err := m.listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	log, err := os.OpenFile(filepath.Join(m.dir(), "agent.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	input, err := m.lifeline(undo)
	if err != nil {
		return err
	}
	defer input.Close()
	if m.process, err = m.e.kernel.StartAgent(m.e.launcher, host.AgentProcess{
		Env: agentEnv(), Files: []*os.File{input, log, log, listener}, BaseID: m.base, IDs: cell.Ids,
	}); err != nil {
		return err
	}
	undo.Add(func() {
		m.e.kernel.Undo(func() {
			m.process.Kill()
			m.awaitEnd()
		})
	})
	// When the host's memory runs out, it is not worth more than the host's own programs.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", m.process.Pid), []byte("500"), 0)
	return nil
}

// moveAgent begins to move the agent into its control group.
func (m *machine) moveAgent(ctx context.Context, undo *host.Undo) error {
	m.moved = make(chan error, 1)
	go func() { m.moved <- m.e.kernel.AddProcess(m.group.Child("agent"), m.process.Pid) }()
	if m.spec.Stateful { // it is about to let go of its lifeline, and must be found by its group from then on
		return m.settle(ctx, undo)
	}
	return nil
}

// settle waits until the agent is in its control group. The move may wait for a grace period (see host.Warm), in which
// the machine is furnished.
func (m *machine) settle(context.Context, *host.Undo) error {
	if m.moved == nil {
		return nil
	}
	err := <-m.moved
	m.moved = nil
	return err
}

// lifeline is the agent's standard input, a pipe that the daemon holds open: a machine ends with its daemon, a stateful
// one only as long as it is not yet set up.
func (m *machine) lifeline(undo *host.Undo) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.line = w
	undo.Add(func() { w.Close() })
	return r, nil
}

// furnish builds the root and hands it to the agent.
func (m *machine) furnish(ctx context.Context, _ *host.Undo) error {
	tree, err := m.root()
	if err != nil {
		return err
	}
	defer tree.Close()
	conn, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	join, err := m.group.Child("agent").Join()
	if err != nil {
		return err
	}
	defer closeAll(join)
	trees, points, err := m.trees(ctx, m.spec.Mounts)
	defer closeAll(trees)
	if err != nil {
		return err
	}
	s := m.spec
	_, err = conn.Setup(agent.Setup{
		Hostname: "sandbox", ShmBytes: int64(s.Limits.MemoryMB) << 19, CPUs: cores(s.Limits), WorkingDir: s.WorkingDir, User: s.Security.User,
		ReadOnly: s.Security.Preset == sandbox.Maximum, Writable: []string{"/tmp"}, Programs: s.Programs, Env: s.Env, Stays: s.Stateful, Resolver: s.Resolver, Mounts: points,
	}, tree, append(trees, join...)...)
	return err
}

// root mounts the overlay of the image's layers, id-mapped, under the machine's disk.
func (m *machine) root() (*os.File, error) {
	userns, err := m.namespace("user")
	if err != nil {
		return nil, err
	}
	defer userns.Close()
	options := []string{"redirect_dir=on"}
	if !m.spec.Stateful {
		options = append(options, "volatile")
	}
	defer m.tree.Close() // the overlay holds what it needs
	if m.e.afloat {
		return m.rootAfloat(userns, options)
	}
	return m.rootAttached(userns, options)
}

func (m *machine) rootAfloat(userns *os.File, options []string) (*os.File, error) {
	var lowers []*os.File
	defer func() { closeAll(lowers) }()
	for _, layer := range m.spec.Layers {
		tree, err := m.layerTree(layer, userns)
		if err != nil {
			return nil, err
		}
		lowers = append(lowers, tree)
	}
	upper, err := host.OpenFolder(m.disk, "upper")
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	work, err := host.OpenFolder(m.disk, "work")
	if err != nil {
		return nil, err
	}
	defer work.Close()
	return m.e.kernel.OverlayOf(lowers, upper, work, options...)
}

// rootAttached: what the overlay is made of is attached only until the overlay holds it, and named by short relative paths, since
// programs can read them.
func (m *machine) rootAttached(userns *os.File, options []string) (*os.File, error) {
	k, dir := m.e.kernel, m.e.mountDir(m.spec.ID)
	defer func() { k.Undo(func() { _ = m.e.unmountAll(m.spec.ID) }) }()
	var lowers []string
	for i, layer := range m.spec.Layers {
		name := "l" + strconv.Itoa(i)
		if err := m.attachLayer(layer, userns, filepath.Join(dir, name)); err != nil {
			return nil, err
		}
		lowers = append(lowers, name)
	}
	return k.Overlay(dir, lowers, "d/upper", "d/work", options...)
}

func (m *machine) attachLayer(layer string, userns *os.File, at string) error {
	mapped, err := m.e.images.clone(layer, userns)
	if err != nil {
		return err
	}
	defer mapped.Close()
	if err := os.Mkdir(at, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	return m.e.kernel.Attach(mapped, at)
}

// unmountAll takes everything off a machine's folder.
func (e *Engine) unmountAll(id string) error {
	dir := e.mountDir(id)
	entries, _ := os.ReadDir(dir)
	for _, d := range entries {
		path := filepath.Join(dir, d.Name())
		if d.IsDir() && mounted(path, dir) {
			if err := e.kernel.Detach(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// mounted compares the mounts that two paths lie on. Source: statx(2), STATX_MNT_ID, kernel 5.8.
func mounted(path, parent string) bool {
	var a, b unix.Statx_t
	err1 := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &a)
	err2 := unix.Statx(unix.AT_FDCWD, parent, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &b)
	return err1 == nil && err2 == nil && a.Mnt_id != b.Mnt_id
}

// firstPlace is the name of the place that waits from the machine's start.
const firstPlace = "first"

func (m *machine) parkFirst(ctx context.Context, _ *host.Undo) error {
	p, err := m.park(ctx, engine.ExecSpec{ID: firstPlace, User: m.spec.Security.User, Limits: m.spec.Limits})
	if err != nil {
		return err
	}
	m.first = p
	return nil
}
