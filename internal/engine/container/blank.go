package container

import (
	"context"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

// blank is a machine whose agent waits for its setup.
type blank struct{ *machine }

// ID implements engine.Blank.
func (b blank) ID() string { return b.spec.ID }

// Blank implements engine.Engine.
func (e *Engine) Blank(ctx context.Context, id string, diskMB int) (engine.Blank, error) {
	m := newMachine(e, engine.MachineSpec{ID: id, SandboxID: engine.Pooled, Limits: sandbox.Limits{DiskMB: diskMB}})
	if err := m.make(ctx, append(m.begin(false), phase{"settle", m.settle})); err != nil {
		return nil, err
	}
	return blank{m}, nil
}

// leaseBlank gives a blank the spec of the machine that it becomes.
func (m *machine) leaseBlank(ctx context.Context, undo *host.Undo) error {
	undo.Add(func() { m.e.kernel.Undo(func() { _ = m.Stop(context.WithoutCancel(ctx)) }) })
	m.spec.Blank = nil
	if err := m.e.writeRecord(m.spec.ID, m.record()); err != nil {
		return err
	}
	if m.spec.SandboxID != engine.Pooled {
		if err := m.e.kernel.Yield(m.group, false); err != nil {
			return err
		}
	}
	return m.e.kernel.LimitCgroup(m.programs(), m.e.limits(m.spec.Limits))
}
