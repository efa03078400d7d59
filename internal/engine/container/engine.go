// Package container is the engine on raw namespaces: no other program, no KVM. A machine is an agent in namespaces of its
// own over an id-mapped image and a disk of its own; see internal/cell for what lies inside.
package container

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

//go:embed agent.bin
var agentBinary []byte // made by `make build` from cmd/outpost-agent

// Engine is the container engine of one installation.
type Engine struct {
	kernel *host.Kernel
	groups *host.Hierarchies
	root   host.Cgroup // of the installation
	dir    string      // DATA/run, one folder a machine
	disks  string      // DATA/disks
	maker  *disk.Maker
	ranges *disk.Ranges
	agent  *os.File
	images imageMounts
	broken string // a protection that tests leave out, to see that isolation says so

	observe func(phase string, took time.Duration)
}

// Options are what an engine needs.
type Options struct {
	Kernel       *host.Kernel
	DataDir      string
	Installation string      // the mark of everything it makes
	Disks        *disk.Maker // nil: one of the engine's own, without a budget
	Registry     string      // of host id blocks, shared by all installations of a host; "" is /run/outpost/ids
	Break        string      // tests only: the isolation not to put in force

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
	if o.Registry == "" {
		o.Registry = "/run/outpost/ids"
	}
	e := &Engine{kernel: o.Kernel, groups: groups, root: groups.Group("outpost-" + o.Installation),
		dir: filepath.Join(o.DataDir, "run"), disks: filepath.Join(o.DataDir, "disks"), broken: o.Break}
	if e.observe = o.Observe; e.observe == nil {
		e.observe = func(string, time.Duration) {}
	}
	e.images = imageMounts{kernel: o.Kernel, dir: filepath.Join(o.DataDir, "mounts")}
	for _, d := range []*string{&e.dir, &e.disks, &e.images.dir} {
		if err := os.MkdirAll(*d, 0o700); err != nil {
			return nil, err
		}
		if *d, err = filepath.EvalSymlinks(*d); err != nil { // one may lie on another disk; mounts follow no links
			return nil, err
		}
	}
	if err := e.images.open(); err != nil {
		return nil, err
	}
	if e.maker = o.Disks; e.maker == nil {
		if e.maker, err = disk.NewMaker(filepath.Join(o.DataDir, "templates"), nil); err != nil {
			return nil, err
		}
	}
	e.maker.Watch(e.disks)
	if e.ranges, err = disk.NewRanges(o.Registry, o.Installation, o.DataDir); err != nil {
		return nil, err
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
	return e, e.keepRanges()
}

// Close lets go of what the engine itself holds; machines go on.
func (e *Engine) Close() {
	e.images.close()
	e.agent.Close()
	_ = e.root.RemoveEmpty() // stays where machines are in it
}

// DropLayers lets go of image layers whose files were removed; machines that use them go on.
func (e *Engine) DropLayers() { e.images.drop() }

// record is what a machine's name can't tell; it is written before the host is touched.
type record struct {
	SandboxID string
	Stateful  bool
	Slot      int // of host ids
	Base      int // the first of them
	Spec      engine.MachineSpec
}

func (e *Engine) machineDir(id string) string { return filepath.Join(e.dir, id) }

func (e *Engine) diskPath(id string) string { return filepath.Join(e.disks, id+".img") }

func (e *Engine) writeRecord(id string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(e.machineDir(id), "machine.json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (e *Engine) readRecord(id string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(e.machineDir(id), "machine.json"))
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
