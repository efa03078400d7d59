// Package microvm is the engine of virtual machines: each machine is a guest of its own under a monitor in a jail of its own. Inside,
// the guest's keeper holds the program as the container engine does on a host (package keeper), so that the limits hold twice; package
// link is what the two say to each other.
package microvm

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/sandbox"
)

// Engine is the microVM engine of one installation.
type Engine struct {
	kernel  *host.Kernel
	root    host.Cgroup // of the installation's microVMs
	dir     string      // DATA/vms, one folder a machine
	disks   string      // DATA/vmdisks
	maker   *disk.Maker
	ranges  *disk.Ranges
	monitor vmm.Monitor
	system  func(ctx context.Context) (System, error)
	patient time.Duration
	log     *slog.Logger
	observe func(phase string, took time.Duration)

	snapshots snapshots
}

// System is what a guest boots.
type System struct {
	Kernel string // an ELF file
	Initrd string // with the keeper and its modules
	Build  string // names both
}

// Options are what an engine needs.
type Options struct {
	Kernel       *host.Kernel
	DataDir      string
	Installation string       // the mark of everything it makes
	Disks        *disk.Maker  // nil: one of the engine's own, without a budget
	Ranges       *disk.Ranges // nil: of the engine's own
	Monitor      vmm.Monitor
	System       func(ctx context.Context) (System, error) // may take long the first time
	Snapshots    bool                                      // guests may go on from one, where the monitor can that
	Log          *slog.Logger
	Patience     time.Duration // how long a guest may take to come up; 0: 20 s

	Observe func(phase string, took time.Duration) // hears of each step of a machine's making, and of its stop; nil: nobody does
}

// Open prepares the engine.
func Open(o Options) (*Engine, error) {
	groups, err := host.FindHierarchies()
	if err != nil {
		return nil, err
	}
	e := &Engine{kernel: o.Kernel, root: groups.Group(groupOf(o.Installation)), dir: filepath.Join(o.DataDir, "vms"), disks: filepath.Join(o.DataDir, "vmdisks"),
		maker: o.Disks, ranges: o.Ranges, monitor: o.Monitor, system: o.System, patient: o.Patience, log: o.Log, observe: o.Observe}
	if e.observe == nil {
		e.observe = func(string, time.Duration) {}
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.patient == 0 {
		e.patient = 20 * time.Second
	}
	for _, d := range []*string{&e.dir, &e.disks} {
		if err := os.MkdirAll(*d, 0o700); err != nil {
			return nil, err
		}
		if *d, err = filepath.EvalSymlinks(*d); err != nil { // jails follow no links
			return nil, err
		}
	}
	if e.maker == nil {
		if e.maker, err = disk.NewMaker(filepath.Join(o.DataDir, "templates"), nil); err != nil {
			return nil, err
		}
	}
	if e.ranges == nil {
		if e.ranges, err = disk.NewRanges(disk.Registry, o.Installation, o.DataDir); err != nil {
			return nil, err
		}
	}
	if err := e.maker.Watch(e.disks); err != nil {
		return nil, err
	}
	if err := makeSpare(e.sparePath()); err != nil {
		return nil, err
	}
	if err := o.Kernel.Delegate(groups); err != nil {
		return nil, err
	}
	if err := o.Kernel.MakeCgroup(e.root, true, host.CgroupLimits{}); err != nil {
		return nil, err
	}
	if err := e.openSnapshots(o.Snapshots); err != nil {
		return nil, err
	}
	return e, e.keepRanges()
}

// groupOf names the control group of an installation's microVMs.
func groupOf(installation string) string { return "outpost-" + installation + "-vm" }

// Close lets go of what the engine itself holds; machines go on.
func (e *Engine) Close() {
	e.closeSnapshots()
	e.maker.Forget(e.disks)
	_ = e.root.RemoveEmpty() // stays where machines are in it
}

// record is what a machine's name can't tell; it is written before the host is touched.
type record struct {
	SandboxID string
	Stateful  bool
	Slot      int // of host ids
	Base      int // the first of them, the monitor's own
	Spec      engine.MachineSpec
}

func (e *Engine) machineDir(id string) string { return filepath.Join(e.dir, id) }

func (e *Engine) diskPath(id string) string { return filepath.Join(e.disks, id+".img") }

func (e *Engine) writeRecord(id string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(e.machineDir(id), recordName)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

const recordName = "machine.json"

func (e *Engine) readRecord(id string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(e.machineDir(id), recordName))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// keepRanges marks the host ids of machines that a former daemon left.
func (e *Engine) keepRanges() error {
	handles, err := e.List(context.Background())
	if err != nil {
		return err
	}
	for _, h := range handles {
		if r, err := e.readRecord(h.ID); err == nil {
			e.ranges.Keep(r.Slot)
		}
	}
	return nil
}

// Blank implements engine.Engine: a guest can't begin without its limits.
func (e *Engine) Blank(context.Context, string, int) (engine.Blank, error) {
	return nil, sandbox.Errorf(sandbox.NotSupported, nil, "a microVM can't be begun before its limits are known")
}

// List implements engine.Engine.
func (e *Engine) List(context.Context) ([]engine.Handle, error) {
	seen := map[string]bool{}
	var handles []engine.Handle
	add := func(id string) {
		if seen[id] || !strings.HasPrefix(id, "m_") {
			return
		}
		seen[id] = true
		r, _ := e.readRecord(id)
		handles = append(handles, engine.Handle{ID: id, SandboxID: r.SandboxID, Stateful: r.Stateful})
	}
	for _, dir := range []string{e.dir, e.disks} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, d := range entries {
			add(strings.TrimSuffix(d.Name(), ".img"))
		}
	}
	for _, name := range e.root.Children() {
		add(name)
	}
	return handles, nil
}

// Has says whether the engine has anything of a machine.
func (e *Engine) Has(id string) bool {
	for _, path := range []string{e.machineDir(id), e.diskPath(id)} {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return e.root.Child(id).Exists()
}

// Halt implements engine.Engine.
func (e *Engine) Halt(ctx context.Context, h engine.Handle) error {
	if !e.Has(h.ID) {
		return nil
	}
	if err := e.endMonitor(ctx, h.ID); err != nil {
		return err
	}
	return nil
}

// endMonitor ends a machine's monitor and removes its jail.
func (e *Engine) endMonitor(ctx context.Context, id string) error {
	if err := e.removeGroup(ctx, id); err != nil {
		return err
	}
	return e.monitor.Remove(e.machineDir(id))
}

// removeGroup ends what may be left in a machine's control group; the kernel lets go of dead processes a moment later.
func (e *Engine) removeGroup(ctx context.Context, id string) error {
	g := e.root.Child(id)
	for end := time.Now().Add(5 * time.Second); g.Exists(); {
		if err := g.Kill(); err != nil {
			return err
		}
		err := g.Remove()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// Remove implements engine.Engine.
func (e *Engine) Remove(ctx context.Context, h engine.Handle) error {
	r, recordErr := e.readRecord(h.ID)
	if err := e.Halt(ctx, h); err != nil {
		return err
	}
	if err := os.Remove(e.diskPath(h.ID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := removeDir(e.machineDir(h.ID)); err != nil {
		return err
	}
	if recordErr == nil {
		e.ranges.Free(r.Slot)
	}
	return nil
}

// removeDir removes a machine's folder, in which nothing but files is left.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range entries {
		if err := os.Remove(filepath.Join(dir, d.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return os.Remove(dir)
}

var _ engine.Engine = (*Engine)(nil)

func internal(err error, what string) error {
	if _, ok := errors.AsType[*sandbox.Error](err); ok {
		return err
	}
	return sandbox.Errorf(sandbox.Internal, err, "%s", what)
}
