package microvm

import (
	"fmt"
	"os"
	"slices"
	"sync"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/sandbox"
)

const (
	// mostDrives is what a monitor has interrupts for, one being its virtual socket's. Source: IRQ_BASE and IRQ_MAX, docs/design.md of
	// Firecracker.
	mostDrives = 18
	// spareDrives are those that layers are shown by which come when the guest runs: none can be added then, but what is behind one
	// can be exchanged.
	spareDrives = 2
)

// drives are a machine's block devices: the image's layers, its disk, what its mounts bring, and spares.
type drives struct {
	all    []vmm.Drive
	layers int
	disk   int         // its number
	mounts map[int]int // the number of the drive of each of the spec's mounts that has one
	first  int         // the number of the first spare

	mu   sync.Mutex
	used map[string]int // the numbers of spares, by the paths in the machine at which they were shown last
	busy map[int]bool   // the numbers of those in use
}

// drivesOf says which drives a machine needs. Errors: NotSupported, Invalid.
func (e *Engine) drivesOf(spec engine.MachineSpec) (*drives, error) {
	d := &drives{layers: len(spec.Layers), mounts: map[int]int{}, used: map[string]int{}, busy: map[int]bool{}}
	add := func(path string, readOnly, durable bool) int {
		d.all = append(d.all, vmm.Drive{ID: fmt.Sprintf("drive%d", len(d.all)), Path: path, ReadOnly: readOnly, Durable: durable})
		return len(d.all) - 1
	}
	for _, layer := range spec.Layers {
		add(layer, true, false)
	}
	d.disk = add(e.diskPath(spec.ID), false, spec.Stateful)
	for i, x := range spec.Mounts {
		switch x.Kind {
		case engine.LayerMount:
			d.mounts[i] = add(x.Source, true, false)
		case engine.DiskMount:
			d.mounts[i] = add(x.Source, false, true)
		case engine.LinkMount:
		default:
			return nil, sandbox.Errorf(sandbox.NotSupported, nil, "a microVM can't have devices or files of the host (%s)", x.Path)
		}
	}
	d.first = len(d.all)
	for range spareDrives {
		add(e.sparePath(), true, false)
	}
	if len(d.all) > mostDrives {
		return nil, sandbox.Errorf(sandbox.Invalid, nil, "the image has %d layers, and a microVM has room for %d: make it of fewer", len(spec.Layers), len(spec.Layers)-(len(d.all)-mostDrives))
	}
	return d, nil
}

// device is what a guest calls a drive. Monitors show them in the order in which they were given.
func device(number int) string { return "/dev/vd" + string(rune('a'+number)) }

// inside is the spec with the guest's paths.
func (d *drives) inside(spec engine.MachineSpec) engine.MachineSpec {
	spec.Layers = make([]string, d.layers)
	for i := range spec.Layers {
		spec.Layers[i] = device(i)
	}
	spec.Disk = device(d.disk)
	spec.Mounts = slices.Clone(spec.Mounts)
	for i, number := range d.mounts {
		spec.Mounts[i].Source = device(number)
	}
	return spec
}

// take gives a spare for what is shown at a path. Error: Capacity.
func (d *drives) take(path string) (number int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for number := d.first; number < len(d.all); number++ {
		if !d.busy[number] {
			d.used[path], d.busy[number] = number, true
			return number, nil
		}
	}
	return 0, sandbox.Errorf(sandbox.Capacity, nil, "the machine shows as many layers as it can")
}

// give gives the spare back that shows nothing at the path any more.
func (d *drives) give(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if number, ok := d.used[path]; ok {
		delete(d.used, path)
		delete(d.busy, number)
	}
}

// sparePath is the file behind a spare drive that shows nothing.
func (e *Engine) sparePath() string { return e.dir + "/spare.img" }

func makeSpare(path string) error {
	if st, err := os.Stat(path); err == nil && st.Size() == spareBytes {
		return nil
	}
	return os.WriteFile(path, make([]byte, spareBytes), 0o444)
}

const spareBytes = 4096
