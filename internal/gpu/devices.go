// Package gpu knows the accelerators that the operator lets sandboxes have: by kind, each a device of a Container Device
// Interface specification, and which sandbox has it. Source: github.com/cncf-tags/container-device-interface, SPEC.md.
package gpu

import (
	"debug/elf"
	"fmt"
	"path"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/specs-go"
)

// Device is what a machine needs for one device.
type Device struct {
	Nodes  []Bind // device nodes
	Files  []Bind // read-only files and folders
	Links  []Link
	Env    [][2]string
	Driver string // of which kind it is, for people: nvidia.com/gpu
}

// Bind shows a thing of the host at a path of the machine.
type Bind struct{ Host, Path string }

// Link is a symbolic link in the machine.
type Link struct{ Path, Target string }

// Catalog reads specifications anew for each look, so that what a driver's installation changes is seen.
type Catalog struct{ dirs []string }

// NewCatalog reads specifications from dirs; none: those that the Container Device Interface names.
func NewCatalog(dirs ...string) *Catalog {
	if len(dirs) == 0 {
		dirs = cdi.DefaultSpecDirs
	}
	return &Catalog{dirs}
}

// Device gives what a qualified name (vendor.com/class=name) stands for. An error says why it can't be had: hooks of a
// specification are never run, so one with a hook whose effect is not made here is refused.
func (c *Catalog) Device(name string) (Device, error) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(c.dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return Device{}, err
	}
	found := cache.GetDevice(name)
	if found == nil {
		for file, errs := range cache.GetErrors() {
			return Device{}, fmt.Errorf("no specification has the device %s, and %s can't be read: %v", name, file, errs[0])
		}
		return Device{}, fmt.Errorf("no specification in %s has the device %s", strings.Join(c.dirs, ", "), name)
	}
	d := Device{Driver: found.GetSpec().Kind}
	for _, edits := range []*specs.ContainerEdits{&found.GetSpec().ContainerEdits, &found.Device.ContainerEdits} {
		if err := d.apply(edits); err != nil {
			return Device{}, fmt.Errorf("device %s: %w", name, err)
		}
	}
	return d, nil
}

func (d *Device) apply(e *specs.ContainerEdits) error {
	switch {
	case len(e.NetDevices) > 0:
		return fmt.Errorf("network devices are not supported")
	case e.IntelRdt != nil:
		return fmt.Errorf("intelRdt is not supported")
	case len(e.AdditionalGIDs) > 0:
		return fmt.Errorf("additionalGids are groups of the host, which no machine has")
	}
	for _, v := range e.Env {
		name, value, _ := strings.Cut(v, "=")
		d.Env = append(d.Env, [2]string{name, value})
	}
	for _, n := range e.DeviceNodes {
		from := n.HostPath
		if from == "" {
			from = n.Path
		}
		if path.Clean(n.Path) != n.Path || !strings.HasPrefix(n.Path, "/dev/") {
			return fmt.Errorf("device node %s is not below /dev", n.Path)
		}
		d.Nodes = append(d.Nodes, Bind{from, n.Path})
	}
	for _, m := range e.Mounts {
		if !path.IsAbs(m.HostPath) || path.Clean(m.ContainerPath) != m.ContainerPath || !path.IsAbs(m.ContainerPath) ||
			m.Type != "" && m.Type != "bind" && m.Type != "none" {
			return fmt.Errorf("mount of %s at %s is not supported: only binds of absolute paths are", m.HostPath, m.ContainerPath)
		}
		d.Files = append(d.Files, Bind{m.HostPath, m.ContainerPath})
	}
	for _, h := range e.Hooks {
		if err := d.cover(h); err != nil {
			return err
		}
	}
	return nil
}

// cover makes the effect of a hook of NVIDIA's toolkit instead of running it. Source: nvidia-cdi-hook(1), its commands
// create-symlinks, update-ldcache and disable-device-node-modification.
func (d *Device) cover(h *specs.Hook) error {
	refused := fmt.Errorf("its hook %s %q is not known, and hooks are never run", path.Base(h.Path), h.Args)
	if len(h.Args) < 2 {
		return refused
	}
	command, rest := h.Args[1], h.Args[2:]
	if command == "hook" && len(rest) > 0 { // nvidia-ctk hook COMMAND
		command, rest = rest[0], rest[1:]
	}
	switch command {
	case "disable-device-node-modification": // keeps programs from making nodes by a file that they don't see here
		return nil
	case "update-ldcache": // lets the loader find the libraries by the names they have in other files
		d.Links = append(d.Links, sonames(d.Files)...)
		return nil
	case "create-symlinks":
		for i, word := range rest {
			value, is := strings.CutPrefix(word, "--link=")
			if !is && word == "--link" && i+1 < len(rest) {
				value, is = rest[i+1], true
			}
			target, link, pair := strings.Cut(value, "::")
			if !is {
				continue
			}
			if !pair || target == "" || path.Clean(link) != link || !path.IsAbs(link) {
				return refused
			}
			d.Links = append(d.Links, Link{link, target})
		}
		return nil
	}
	return refused
}

// sonames are links from the name that a library says it has to its file.
func sonames(files []Bind) (links []Link) {
	for _, f := range files {
		if !strings.Contains(path.Base(f.Path), ".so") {
			continue
		}
		lib, err := elf.Open(f.Host)
		if err != nil {
			continue // no library
		}
		names, err := lib.DynString(elf.DT_SONAME)
		lib.Close()
		if err == nil && len(names) == 1 && names[0] != path.Base(f.Path) && !strings.Contains(names[0], "/") {
			links = append(links, Link{path.Join(path.Dir(f.Path), names[0]), path.Base(f.Path)})
		}
	}
	return links
}
