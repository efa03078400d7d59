package microvm

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/microvm/link"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/sandbox"
)

// What a guest has beside its program's memory: its kernel with the pages that describe all others (64 bytes for 4 KiB), its keeper and
// agent, and their files, which are in memory. A monitor has its own beside the guest's.
const (
	guestMemoryMB   = 112
	guestMemoryPart = 32 // of the program's, one in so many
	monitorMemoryMB = 64
	monitorPids     = 64 // its threads, one for each processor among them
)

// spareCores is what a guest may use of the host's processors beside its program's limit, which holds inside: for its kernel and keeper.
const spareCores = 0.25

// guestMemory is what a guest is given for a program that may have so much.
func guestMemory(programMB int) int { return programMB + programMB/guestMemoryPart + guestMemoryMB }

func cores(l sandbox.Limits) int { return max(1, int(math.Ceil(l.CPUCores))) }

// Start implements engine.Engine.
func (e *Engine) Start(ctx context.Context, spec engine.MachineSpec) (engine.Machine, error) {
	m, err := e.startOnce(ctx, spec)
	if err != nil && m.fell && ctx.Err() == nil {
		e.log.Warn("a guest ended before it was up; another one is booted, once", "error", err)
		m, err = e.startOnce(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// startOnce makes a machine of a snapshot, or boots it.
func (e *Engine) startOnce(ctx context.Context, spec engine.MachineSpec) (*machine, error) {
	m := &machine{e: e, spec: spec}
	snapshot, release := e.takeSnapshot(m)
	defer release()
	if snapshot != nil {
		m.restore = snapshot.dir
		err := m.make(ctx)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil || m.restored {
			return m, err
		}
		e.log.Warn("no guest came of a snapshot; this one boots, and others of its kind", "error", err)
		e.spoilt(snapshot)
		m = &machine{e: e, spec: spec}
	}
	return m, m.make(ctx)
}

// make makes the machine, or leaves nothing of it.
func (m *machine) make(ctx context.Context) error {
	var undo host.Undo
	defer undo.Run()
	for _, p := range []struct {
		name string
		do   func(context.Context, *host.Undo) error
	}{{"claim", m.claim}, {"groups", m.makeGroup}, {"disk", m.makeDisk}, {m.bootPhase(), m.boot}, {"link", m.connect}, {"furnish", m.furnish}} {
		began := time.Now()
		if err := p.do(ctx, &undo); err != nil {
			return internal(err, "the machine could not be made")
		}
		m.e.observe(p.name, time.Since(began))
	}
	undo.Keep()
	go m.watch()
	return nil
}

// claim takes host ids and writes the record, before anything is made that a name can't tell.
func (m *machine) claim(ctx context.Context, undo *host.Undo) (err error) {
	if m.drives, err = m.e.drivesOf(m.spec); err != nil {
		return err
	}
	if m.spec.Again {
		return m.claimAgain(ctx)
	}
	slot, err := m.e.ranges.Take()
	if err != nil {
		return err
	}
	m.slot, m.base = slot, m.e.ranges.Base(slot)
	undo.Add(func() {
		m.e.kernel.Undo(func() {
			if !m.group().Exists() { // else a process of it does not die, and its record and host ids stay for the sweep
				_ = removeDir(m.dir())
				m.e.ranges.Free(slot)
			}
		})
	})
	if err := m.e.kernel.MakeDir(m.dir()); err != nil {
		return err
	}
	return m.e.writeRecord(m.spec.ID, m.record())
}

// claimAgain takes over what a halted machine left: its host ids, layers and disk.
func (m *machine) claimAgain(ctx context.Context) error {
	r, err := m.e.readRecord(m.spec.ID)
	if err == nil {
		_, err = os.Stat(m.e.diskPath(m.spec.ID))
	}
	if err != nil {
		return sandbox.Errorf(sandbox.Lost, err, "the sandbox's files are gone: delete it and create it anew")
	}
	if m.group().Exists() {
		return fmt.Errorf("machine %s is not halted", m.spec.ID)
	}
	m.slot, m.base = r.Slot, r.Base
	m.e.ranges.Keep(r.Slot)
	m.spec.Layers = r.Spec.Layers // those that its disk was made over
	if m.drives, err = m.e.drivesOf(m.spec); err != nil {
		return err
	}
	if err := m.e.monitor.Remove(m.dir()); err != nil {
		return err
	}
	return m.e.writeRecord(m.spec.ID, m.record())
}

func (m *machine) record() record {
	return record{SandboxID: m.spec.SandboxID, Stateful: m.spec.Stateful, Slot: m.slot, Base: m.base, Spec: m.spec}
}

func (m *machine) group() host.Cgroup { return m.e.root.Child(m.spec.ID) }

// makeGroup makes what limits the monitor with its guest. A guest that boots has what it can use; its own limit comes when it is up.
func (m *machine) makeGroup(ctx context.Context, undo *host.Undo) error {
	k := m.e.kernel
	undo.Add(func() { k.Undo(func() { _ = m.e.removeGroup(context.WithoutCancel(ctx), m.spec.ID) }) })
	memory := int64(guestMemory(m.spec.Limits.MemoryMB)+monitorMemoryMB) << 20
	if err := k.MakeCgroup(m.group(), false, host.CgroupLimits{MemoryBytes: memory, CPUMillis: 1000 * (cores(m.spec.Limits) + 1), Pids: monitorPids}); err != nil {
		return err
	}
	if m.spec.SandboxID == engine.Pooled {
		return k.Yield(m.group(), true)
	}
	return nil
}

// makeDisk makes the machine's own file system. Only its guest ever mounts it.
func (m *machine) makeDisk(ctx context.Context, undo *host.Undo) error {
	if m.spec.Again {
		return nil
	}
	path := m.e.diskPath(m.spec.ID)
	undo.Add(func() { m.e.kernel.Undo(func() { _ = os.Remove(path) }) })
	if err := m.e.kernel.Enter("make disk"); err != nil {
		return err
	}
	return m.e.maker.Make(ctx, path, m.spec.Limits.DiskMB, m.spec.Stateful)
}

// bootPhase names what boot does.
func (m *machine) bootPhase() string {
	if m.restore != "" {
		return "restore"
	}
	return "boot"
}

// boot starts the monitor with its guest.
func (m *machine) boot(ctx context.Context, undo *host.Undo) error {
	system, err := m.e.system(ctx)
	if err != nil {
		return err
	}
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	undo.Add(func() {
		m.e.kernel.Undo(func() { _ = m.e.endMonitor(context.WithoutCancel(ctx), m.spec.ID) })
	})
	if err := m.e.kernel.Enter("start the monitor"); err != nil {
		return err
	}
	c := m.config()
	c.Restore = m.restore
	c.Kernel, c.Initrd, c.Namespace = system.Kernel, system.Initrd, ns
	c.Arguments = "outpost.build=" + system.Build
	c.Place = func(pid int) error { return m.e.kernel.AddProcess(m.group(), pid) }
	m.build = system.Build
	m.vm, err = m.e.monitor.Start(ctx, c)
	return err
}

// config is all of the monitor's configuration that does not change from boot to boot.
func (m *machine) config() vmm.Config {
	return vmm.Config{ID: m.spec.ID, Dir: m.dir(), UID: m.base, GID: m.base, MemoryMB: guestMemory(m.spec.Limits.MemoryMB), VCPUs: cores(m.spec.Limits), Drives: m.drives.all,
		Processes: func() []int { return m.group().Processes() }}
}

// connect waits for the guest's keeper.
func (m *machine) connect(ctx context.Context, undo *host.Undo) error {
	patient, cancel := context.WithTimeout(ctx, m.e.patient)
	defer cancel()
	defer func() {
		if m.link != nil {
			undo.Add(func() { m.link.Close() })
		}
	}()
	var last error
	for {
		if m.link, last = m.dial(patient); last == nil {
			return nil
		}
		select {
		case <-m.vm.Dead():
			m.fell = true
			return m.failed("the guest ended before it was up", last)
		case <-patient.Done():
			return m.failed(fmt.Sprintf("the guest did not come up in %s", m.e.patient), last)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// dial makes a link, and hears from the keeper.
func (m *machine) dial(ctx context.Context) (*link.Client, error) {
	conn, err := m.vm.Dial(ctx)
	if err != nil {
		return nil, err
	}
	l, err := link.New(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	hello, err := l.Hello(ctx)
	if err == nil && m.build != "" && hello.Build != m.build {
		err = fmt.Errorf("the guest runs build %q, not %q", hello.Build, m.build)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// failed says what the guest's console said last.
func (m *machine) failed(what string, err error) error {
	return sandbox.Errorf(sandbox.Internal, fmt.Errorf("%w; its console said: %s", err, m.lastWords()), "%s", what)
}

// lastWords are the last that the guest's console said, and its monitor.
func (m *machine) lastWords() string {
	console := strings.TrimSpace(m.vm.Console())
	if i := strings.Index(console, "Kernel panic"); i > 0 { // the rest is where it was, not why
		console = console[i:min(len(console), i+600)]
	} else if i := len(console) - 600; i > 0 {
		console = "…" + console[i:]
	}
	return cmp.Or(console, "nothing")
}

// watch tells the log of a guest that ends though nobody ended it.
func (m *machine) watch() {
	<-m.vm.Dead()
	if !m.ending.Load() {
		m.e.log.Warn("a guest ended by itself", "machine", m.spec.ID, "sandbox_id", m.Handle().SandboxID, "console", m.lastWords())
	}
}

// furnish makes the guest its own, and lets its keeper make the machine.
func (m *machine) furnish(ctx context.Context, _ *host.Undo) error {
	fresh := make([]byte, 64)
	_, _ = rand.Read(fresh)
	m.restored = true // what fails from now on, another guest would fail, too
	if err := m.link.Renew(ctx, link.Renewal{Time: time.Now(), Entropy: fresh}); err != nil {
		return err
	}
	if err := m.link.Start(ctx, m.drives.inside(m.spec)); err != nil {
		return err
	}
	limit := host.CgroupLimits{CPUMillis: int((m.spec.Limits.CPUCores + spareCores) * 1000)}
	return m.e.kernel.LimitCgroup(m.group(), limit)
}
