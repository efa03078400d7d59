package node

import (
	"cmp"
	"context"

	"outpost.run/outpost/internal/engine"
)

// engines are the isolation technologies of the host as one: which of them makes a machine, its spec says, and whose it is, it says
// itself for all its life.
type engines struct {
	container engine.Engine
	microVM   microVM // nil: this host has none
	watcher   Watcher
	census    *census
}

// microVM is the engine of machines with Security.JailerEnabled.
type microVM interface {
	engine.Engine
	// Has says whether the engine has anything of a machine.
	Has(id string) bool
}

// of is the engine that a machine is made by.
func (e engines) of(spec engine.MachineSpec) engine.Engine {
	if e.microVM != nil && (spec.Security.JailerEnabled && !spec.Again || spec.Again && e.microVM.Has(spec.ID)) {
		return e.microVM
	}
	return e.container
}

// whose is the engine that has a machine.
func (e engines) whose(h engine.Handle) engine.Engine {
	if e.microVM != nil && e.microVM.Has(h.ID) {
		return e.microVM
	}
	return e.container
}

// Probe implements engine.Engine.
func (e engines) Probe(ctx context.Context) engine.Capabilities { return e.container.Probe(ctx) }

// Start implements engine.Engine.
func (e engines) Start(ctx context.Context, spec engine.MachineSpec) (engine.Machine, error) {
	of := e.of(spec)
	name := e.name(of)
	end := e.watcher.MachineStarts(name)
	m, err := of.Start(ctx, spec)
	if err == nil {
		e.census.add(name, m)
		end(nil)
	} else {
		end(cmp.Or(ctx.Err(), err))
	}
	return m, err
}

// name is an engine's.
func (e engines) name(of engine.Engine) string {
	if e.microVM != nil && of == engine.Engine(e.microVM) {
		return microVMs
	}
	return containers
}

// Blank implements engine.Engine, for containers.
func (e engines) Blank(ctx context.Context, id string, diskMB int) (engine.Blank, error) {
	return e.container.Blank(ctx, id, diskMB)
}

// Recover implements engine.Engine.
func (e engines) Recover(ctx context.Context, h engine.Handle) (engine.Machine, error) {
	of := e.whose(h)
	m, err := of.Recover(ctx, h)
	if err == nil {
		e.census.add(e.name(of), m)
	}
	return m, err
}

// List implements engine.Engine.
func (e engines) List(ctx context.Context) ([]engine.Handle, error) {
	all, err := e.container.List(ctx)
	if err != nil || e.microVM == nil {
		return all, err
	}
	more, err := e.microVM.List(ctx)
	return append(all, more...), err
}

// Halt implements engine.Engine.
func (e engines) Halt(ctx context.Context, h engine.Handle) error { return e.whose(h).Halt(ctx, h) }

// Remove implements engine.Engine.
func (e engines) Remove(ctx context.Context, h engine.Handle) error {
	return e.whose(h).Remove(ctx, h)
}

// DropLayers lets go of image layers whose files were removed.
func (e engines) DropLayers() {
	if c, ok := e.container.(interface{ DropLayers() }); ok {
		c.DropLayers()
	}
}

// Close lets go of what the engines themselves hold.
func (e engines) Close() {
	for _, x := range []any{e.container, e.microVM} {
		if c, ok := x.(interface{ Close() }); ok {
			c.Close()
		}
	}
}
