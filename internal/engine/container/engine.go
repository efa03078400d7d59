// Package container is the engine on raw namespaces: no other program, no KVM. A machine is an agent in namespaces of its
// own over an id-mapped image and a disk of its own; see internal/cell for what lies inside.
package container

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/sandbox"
)

//go:embed agent.bin
var agentBinary []byte // made by `make build` from cmd/outpost-agent

// Engine is the container engine of one installation.
type Engine struct {
	kernel *host.Kernel
	groups *host.Hierarchies
	root   host.Cgroup // of the installation
	dir    string      // DATA/run, one folder a stateful machine
	memory string      // DATA/mounts, in memory: one folder a machine for what is mounted on its way, and for all an ephemeral one has
	disks  string      // DATA/disks
	maker  *disk.Maker
	ranges *disk.Ranges
	agent  *os.File

	launcher *host.Launcher // of agents
	sockets  netns.Sockets  // in machines
	images   imageMounts
	afloat   bool   // roots are made of trees that are attached nowhere
	broken   string // a protection that tests leave out, to see that isolation says so

	observe func(phase string, took time.Duration)

	mu    sync.Mutex
	found map[string]int // host ids of ephemeral machines that a former daemon left
}

// Options are what an engine needs.
type Options struct {
	Kernel       *host.Kernel
	DataDir      string
	Installation string       // the mark of everything it makes
	Disks        *disk.Maker  // nil: one of the engine's own, without a budget
	Ranges       *disk.Ranges // nil: of the engine's own
	Registry     string       // without Ranges: of host id blocks, shared by all installations of a host; "" is disk.Registry
	Break        string       // tests only: the isolation not to put in force
	Attach       bool         // tests only: make roots as kernels before 6.15 must

	Observe func(phase string, took time.Duration) // hears of each step of a machine's making, and of its stop; nil: nobody does
}

// Open prepares the engine. The process must be in a mount namespace of its own (host.EnterPrivateMounts).
func Open(o Options) (*Engine, error) {
	if err := host.CheckPrivateMounts(); err != nil {
		return nil, err
	}
	if err := host.KeepFiles(); err != nil {
		return nil, err
	}
	groups, err := host.FindHierarchies()
	if err != nil {
		return nil, err
	}
	e := &Engine{kernel: o.Kernel, groups: groups, root: groups.Group("outpost-" + o.Installation),
		dir: filepath.Join(o.DataDir, "run"), disks: filepath.Join(o.DataDir, "disks"), afloat: host.CanOverlayDetached() && !o.Attach, broken: o.Break, found: map[string]int{}}
	if e.observe = o.Observe; e.observe == nil {
		e.observe = func(string, time.Duration) {}
	}
	e.memory = filepath.Join(o.DataDir, "mounts")
	for _, d := range []*string{&e.dir, &e.disks, &e.memory} {
		if err := os.MkdirAll(*d, 0o700); err != nil {
			return nil, err
		}
		if *d, err = filepath.EvalSymlinks(*d); err != nil { // one may lie on another disk; mounts follow no links
			return nil, err
		}
	}
	if err := e.openMemory(); err != nil {
		return nil, err
	}
	e.images = imageMounts{kernel: o.Kernel, dir: e.memory}
	if e.maker = o.Disks; e.maker == nil {
		if e.maker, err = disk.NewMaker(filepath.Join(o.DataDir, "templates"), nil); err != nil {
			return nil, err
		}
	}
	if err := e.maker.Watch(e.disks); err != nil {
		return nil, err
	}
	if e.ranges = o.Ranges; e.ranges == nil {
		if e.ranges, err = disk.NewRanges(cmp.Or(o.Registry, disk.Registry), o.Installation, o.DataDir); err != nil {
			return nil, err
		}
	}
	if e.agent, err = host.SealedFile("outpost-agent", agentBinary); err != nil {
		return nil, err
	}
	if err := o.Kernel.Delegate(groups); err != nil {
		return nil, err
	}
	if err := o.Kernel.MakeCgroup(e.root, true, host.CgroupLimits{}); err != nil {
		return nil, err
	}
	if err := o.Kernel.MakeCgroup(e.launchers(), false, host.CgroupLimits{}); err != nil {
		return nil, err
	}
	e.launcher = host.NewLauncher(e.agent, e.launchers())
	return e, e.keepRanges()
}

// launchers is the group of what starts agents.
func (e *Engine) launchers() host.Cgroup { return e.root.Child("launcher") }

// Close lets go of what the engine itself holds; machines go on.
func (e *Engine) Close() {
	e.images.close()
	e.maker.Forget(e.disks)
	_ = e.kernel.Detach(e.memory)
	e.launcher.Close()
	e.sockets.Close()
	e.agent.Close()
	_ = e.launchers().RemoveEmpty()
	_ = e.root.RemoveEmpty() // stays where machines are in it
}

// DropLayers lets go of image layers whose files were removed; machines that use them go on.
func (e *Engine) DropLayers() { e.images.drop() }

// ForgetLayer lets go of a layer whose name is about to mean another one; machines that use it go on.
func (e *Engine) ForgetLayer(layer string) { e.images.forget(layer) }

// record is what a machine's name can't tell; it is written before the host is touched.
type record struct {
	SandboxID string
	Stateful  bool
	Slot      int // of host ids
	Base      int // the first of them
	Spec      engine.MachineSpec
}

// openMemory mounts what only this daemon needs. A former one's went with its mount namespace, but for one that ran in ours.
//
// Making and removing a few files for each machine would be slow on a disk: ext4 passes over every inode that was freed in the
// last minutes when it looks for a free one. Source: recently_deleted in fs/ext4/ialloc.c.
func (e *Engine) openMemory() error {
	for mounted(e.memory, filepath.Dir(e.memory)) {
		if err := e.kernel.Detach(e.memory); err != nil {
			return err
		}
	}
	return e.kernel.MountScratch(e.memory)
}

// machineDir is where a machine's record and socket are: those of a stateful one outlive the daemon.
func (e *Engine) machineDir(id string, stateful bool) string {
	if stateful {
		return filepath.Join(e.dir, id)
	}
	return e.mountDir(id)
}

// mountDir is where things are mounted on their way into a machine.
func (e *Engine) mountDir(id string) string { return filepath.Join(e.memory, id) }

func (e *Engine) diskPath(id string) string { return filepath.Join(e.disks, id+".img") }

func (e *Engine) writeRecord(id string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(e.machineDir(id, r.Stateful), "machine.json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (e *Engine) readRecord(id string) (record, error) {
	var r record
	b, err := []byte(nil), os.ErrNotExist
	if e.memory != "" {
		b, err = os.ReadFile(filepath.Join(e.machineDir(id, false), "machine.json"))
	}
	if errors.Is(err, os.ErrNotExist) {
		b, err = os.ReadFile(filepath.Join(e.machineDir(id, true), "machine.json"))
	}
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// keepRanges marks the host ids of machines that a former daemon left. The records of ephemeral ones went with it: their
// processes tell, if there are any.
func (e *Engine) keepRanges() error {
	handles, err := e.List(context.Background())
	if err != nil {
		return err
	}
	for _, h := range handles {
		if r, err := e.readRecord(h.ID); err == nil {
			e.ranges.Keep(r.Slot)
			continue
		}
		for _, pid := range e.root.Child(h.ID).Processes() {
			if slot, ok := e.ranges.Slot(host.FirstID(pid)); ok {
				e.ranges.Keep(slot)
				e.found[h.ID] = slot
				break
			}
		}
	}
	return nil
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
	for _, dir := range []string{e.dir, e.memory, e.disks} {
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

// Halt implements engine.Engine.
func (e *Engine) Halt(ctx context.Context, h engine.Handle) error {
	if err := removeGroup(ctx, e.root.Child(h.ID)); err != nil {
		return err
	}
	return e.unmountAll(h.ID)
}

// Remove implements engine.Engine.
func (e *Engine) Remove(ctx context.Context, h engine.Handle) error {
	r, recordErr := e.readRecord(h.ID)
	if err := e.Halt(ctx, h); err != nil {
		return err
	}
	if err := e.removeDisk(h.ID, recordErr == nil && !r.Stateful); err != nil {
		return err
	}
	if err := e.removeDirs(h.ID); err != nil {
		return err
	}
	if recordErr == nil {
		e.ranges.Free(r.Slot)
	} else {
		e.freeFound(h.ID)
	}
	return nil
}

// removeDisk removes a machine's disk, or keeps its file for the next machine.
func (e *Engine) removeDisk(id string, again bool) error {
	if again {
		return e.maker.Return(e.diskPath(id))
	}
	if err := os.Remove(e.diskPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (e *Engine) removeDirs(id string) error {
	if err := removeDir(e.machineDir(id, false)); err != nil {
		return err
	}
	return removeDir(e.machineDir(id, true))
}

// freeFound frees the host ids of a machine that keepRanges found.
func (e *Engine) freeFound(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if slot, ok := e.found[id]; ok {
		e.ranges.Free(slot)
		delete(e.found, id)
	}
}

// removeDir removes a machine's folder, one file system deep: whatever is mounted below stops it.
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
