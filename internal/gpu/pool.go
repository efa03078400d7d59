package gpu

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"outpost.run/outpost/sandbox"
)

// Pool hands devices out, each to one sandbox at a time. Its journal is a folder with a file for each device in use that
// holds the sandbox's id: it is written before a machine sees the device.
type Pool struct {
	kinds   map[string][]string // device names by kind: T4, nvidia.com/gpu=0
	catalog *Catalog
	dir     string

	mu sync.Mutex
}

// NewPool keeps its journal in dir.
func NewPool(kinds map[string][]string, catalog *Catalog, dir string) (*Pool, error) {
	return &Pool{kinds: kinds, catalog: catalog, dir: dir}, os.MkdirAll(dir, 0o700)
}

// Take gives a sandbox devices by what it asks for (T4:2); one that has devices keeps them.
//
// Errors: GPUUnavailable, with what there is; NotSupported, a device's specification can't be used.
func (p *Pool) Take(sandboxID, asked string) error {
	kind, number, _ := strings.Cut(asked, ":")
	count, err := strconv.Atoi(number)
	if err != nil {
		return sandbox.Errorf(sandbox.Invalid, nil, "%q is not TYPE:COUNT", asked)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	owners, err := p.owners()
	if err != nil {
		return err
	}
	var free []string
	for _, name := range p.kinds[kind] {
		if owners[name] == "" {
			free = append(free, name)
		}
	}
	if len(free) < count {
		f := sandbox.Faults{{Field: "resource_limits.gpu", Reason: fmt.Sprintf("%s can't be had now; this server has %s", asked, p.inventory(owners))}}
		return f.Err(sandbox.GPUUnavailable)
	}
	for _, name := range free[:count] {
		if _, err := p.catalog.Device(name); err != nil {
			f := sandbox.Faults{{Field: "resource_limits.gpu", Reason: "the device's specification on this server can't be used; its operator's log says why"}}
			return errors.Join(f.Err(sandbox.NotSupported), err)
		}
	}
	for _, name := range free[:count] {
		if err := p.write(name, sandboxID); err != nil {
			return errors.Join(err, p.freeLocked(sandboxID))
		}
	}
	return nil
}

// write notes who has a device so that it is there in full or not at all, the power going off included.
func (p *Pool) write(device, sandboxID string) error {
	f, err := os.CreateTemp(p.dir, draft+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(sandboxID)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), p.path(device)); err != nil {
		return err
	}
	dir, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// draft begins the names of files that are no entries yet; no device's name can.
const draft = ".new-"

// inventory is what there is, for people.
func (p *Pool) inventory(owners map[string]string) string {
	if len(p.kinds) == 0 {
		return "no GPUs"
	}
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(p.kinds)) {
		free := 0
		for _, name := range p.kinds[kind] {
			if owners[name] == "" {
				free++
			}
		}
		all = append(all, fmt.Sprintf("%s: %d of %d free", kind, free, len(p.kinds[kind])))
	}
	return strings.Join(all, ", ")
}

// unknown is the owner of a device whose entry can't be read.
const unknown = "unknown"

func (p *Pool) path(device string) string { return filepath.Join(p.dir, url.PathEscape(device)) }

// owners are the sandboxes that have a device, by its name.
func (p *Pool) owners() (map[string]string, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, e := range entries {
		name, err := url.PathUnescape(e.Name())
		if err != nil || strings.HasPrefix(name, draft) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(p.dir, e.Name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if owners[name] = string(b); len(b) == 0 && err == nil {
			owners[name] = unknown // what is written is never empty: somebody has it, and only a person can tell who
		}
	}
	return owners, nil
}

// Devices are those of a sandbox, ready for a machine.
func (p *Pool) Devices(sandboxID string) ([]Device, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	owners, err := p.owners()
	if err != nil {
		return nil, err
	}
	var all []Device
	for _, name := range slices.Sorted(maps.Keys(owners)) {
		if owners[name] != sandboxID {
			continue
		}
		d, err := p.catalog.Device(name)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// Free gives a sandbox's devices back; its machines are gone. nil for one that has none.
func (p *Pool) Free(sandboxID string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.freeLocked(sandboxID)
}

func (p *Pool) freeLocked(sandboxID string) error {
	owners, err := p.owners()
	for name, owner := range owners {
		if owner == sandboxID {
			err = errors.Join(err, os.Remove(p.path(name)))
		}
	}
	return err
}

// Holders are the sandboxes that have devices.
func (p *Pool) Holders() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	owners, err := p.owners()
	maps.DeleteFunc(owners, func(_, owner string) bool { return owner == unknown })
	return slices.Compact(slices.Sorted(maps.Values(owners))), err
}
