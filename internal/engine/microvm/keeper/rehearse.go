package keeper

import (
	"context"
	"errors"
	"io"
	"runtime/debug"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
)

// rehearse makes a machine that nobody will have, with its disk in memory, runs the image's programs in it with nothing to read, and removes
// it: what all later ones are made of is then in memory, and nothing of it has touched a disk. A program that fails is none of our
// business: who runs it next hears why. What it gives is the beginning of another, whose agent waits to hear what it is.
func rehearse(ctx context.Context, e engine.Engine, spec engine.MachineSpec) (engine.Blank, error) {
	spec.ID, spec.Disk = "m_rehearsal", engine.InMemory
	m, err := e.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	for _, name := range spec.Programs {
		x, err := m.Park(ctx, engine.ExecSpec{ID: "rehearsal", User: spec.Security.User, Limits: spec.Limits})
		if err != nil {
			break
		}
		stop := context.AfterFunc(ctx, func() { _ = x.Kill() })
		_, _, _ = x.Run(agent.Run{Argv: []string{name}, Dir: spec.WorkingDir, MaxOutput: 1 << 10},
			agent.Feed{Stdout: io.Discard, Stderr: io.Discard, Started: func() {}, Exited: func(agent.Exit) {}})
		stop()
		x.Close()
	}
	if err := m.Stop(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	b, err := e.Blank(ctx, "m_ahead", 0)
	debug.FreeOSMemory() // a snapshot has all of it
	return b, errors.Join(err, ctx.Err())
}
