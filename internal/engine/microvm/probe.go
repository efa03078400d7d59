package microvm

import (
	"context"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/vmm"
)

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) engine.Capabilities { return Probe(ctx, e.monitor) }

// Probe says what this host lets machines under a monitor be.
func Probe(ctx context.Context, monitor vmm.Monitor) engine.Capabilities {
	r := monitor.Probe(ctx)
	c := engine.Capabilities{Engine: "microvm", Usable: r.Usable}
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	c.Kernel = unix.ByteSliceToString(uts.Release[:])
	if groups, err := host.FindHierarchies(); err == nil {
		c.Cgroups = groups.Kind()
	}
	for _, x := range r.Checks {
		c.Checks = append(c.Checks, engine.Check(x))
	}
	return c
}
