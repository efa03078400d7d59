package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/microvm"
	"outpost.run/outpost/internal/engine/microvm/link"
	"outpost.run/outpost/internal/guestos"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/internal/vmm/firecracker"
	"outpost.run/outpost/internal/vmm/qemu"
)

// monitorOf is the monitor that the configuration names.
func monitorOf(c config.MicroVM) vmm.Monitor {
	if c.VMM == "qemu" {
		return qemu.New([]string{cmp.Or(programPath(c.QEMU, "qemu-system-x86_64"), "qemu-system-x86_64")}, c.AllowEmulation && host.TryKVM() != nil)
	}
	return firecracker.New(programPath(c.Firecracker, "firecracker"), programPath(c.Jailer, "jailer"), link.Port)
}

// programPath is the path that was named, else that in PATH; "" where there is none.
func programPath(named, name string) string {
	if named != "" {
		return named
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	return path
}

// installed says whether it is worth to look further: without its programs a monitor runs nothing, whatever the host can.
func installed(c config.MicroVM) bool {
	if c.VMM == "qemu" {
		return programPath(c.QEMU, "qemu-system-x86_64") != ""
	}
	return programPath(c.Firecracker, "firecracker") != "" && programPath(c.Jailer, "jailer") != ""
}

// noMicroVM is why a sandbox with a jailer can't be had, and what mends it.
func noMicroVM(lacks string) string {
	return "this server can't run microVMs: " + lacks + "; leave jailer_enabled out to get a container, or ask for an operator's server that can"
}

// openMicroVM opens the engine of microVMs, or says why there is none. Where it is the default there must be one.
func openMicroVM(ctx context.Context, c config.Config, id string, maker *disk.Maker, ranges *disk.Ranges, observe func(string, time.Duration), log *slog.Logger) (*microvm.Engine, string, error) {
	e, lacks, err := tryMicroVM(ctx, c, id, maker, ranges, observe, log)
	if err == nil && e == nil && c.Engines.Default == "microvm" {
		err = errors.New("engines.default is microvm, and this host can't run any: " + lacks)
	}
	if lacks != "" {
		lacks = noMicroVM(lacks)
	}
	return e, lacks, err
}

func tryMicroVM(ctx context.Context, c config.Config, id string, maker *disk.Maker, ranges *disk.Ranges, observe func(string, time.Duration), log *slog.Logger) (*microvm.Engine, string, error) {
	words := c.Engines.MicroVM
	if !installed(words) {
		return nil, "it has no " + words.VMM + monitorNeeds[words.VMM], nil
	}
	monitor := monitorOf(words)
	if lacks := lacking(microvm.Probe(ctx, monitor).Checks); lacks != "" {
		return nil, lacks, nil
	}
	system := guestos.NewMaker(guestos.Options{Dir: filepath.Join(c.DataDir, "guestos"), Kernel: words.Kernel, Init: microvm.Keeper})
	go func() { // the first sandbox would wait for it
		if _, err := system.Get(ctx); err != nil && ctx.Err() == nil {
			log.Error("the guests' system could not be prepared; the first sandbox that needs it tries again", "error", err)
		}
	}()
	patience := 20 * time.Second
	if words.AllowEmulation {
		patience = time.Minute
	}
	e, err := microvm.Open(microvm.Options{
		Kernel: host.New(), DataDir: c.DataDir, Installation: id, Disks: maker, Ranges: ranges, Monitor: monitor, Patience: patience, Observe: observe,
		Snapshots: words.Snapshots && words.VMM == "firecracker", Log: log,
		System: func(ctx context.Context) (microvm.System, error) {
			s, err := system.Get(ctx)
			return microvm.System{Kernel: s.Kernel, Initrd: s.Initrd, Build: s.Build}, err
		},
	})
	return e, "", err
}

// monitorNeeds says what mends a host without the monitor.
var monitorNeeds = map[string]string{
	"firecracker": " and jailer: install firecracker with its jailer, or name them by engines.microvm.firecracker and engines.microvm.jailer",
	"qemu":        ": install qemu-system-x86, or name it by engines.microvm.qemu",
}

// lacking lists the required checks that fail, in one line.
func lacking(checks []engine.Check) string {
	var all []string
	for _, x := range checks {
		if x.Required && !x.OK {
			all = append(all, fmt.Sprintf("%s: %s (%s)", x.Name, x.Found, x.Mend))
		}
	}
	return strings.Join(all, "; ")
}
