package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Create implements service.Runtime.
func (n *Node) Create(ctx context.Context, s service.SandboxSpec) (service.SandboxState, error) {
	done, err := n.begin()
	if err != nil {
		return service.SandboxState{}, err
	}
	defer done()
	n.chores.heard()
	state, err := n.create(ctx, s)
	if err != nil && n.ctx.Err() != nil {
		err = stopping()
	}
	return state, err
}

func (n *Node) create(ctx context.Context, s service.SandboxSpec) (service.SandboxState, error) {
	img, release, err := n.image(ctx, s)
	if err != nil {
		return service.SandboxState{}, err
	}
	defer release()
	b := newBox(fitted(s, img))
	b.image = img
	defer n.equipped(b)
	if err := n.equip(ctx, b); err != nil {
		return service.SandboxState{}, err
	}
	m, ahead, err := n.startFirst(ctx, b)
	if err != nil {
		return service.SandboxState{}, errors.Join(err, n.strip(b))
	}
	b.machine, b.ahead, b.isolation = m, ahead, m.Isolation()
	n.mu.Lock()
	closed := n.closed
	if !closed {
		n.boxes[s.ID] = b
	}
	n.mu.Unlock()
	if closed {
		n.endNow(m)
		return service.SandboxState{}, errors.Join(stopping(), n.strip(b))
	}
	n.attend(b, m)
	return b.state(), nil
}

// startTime is how long the making of a machine may take.
const startTime = time.Minute

// startFirst gives a new sandbox its machine. Where its first program is not yet known, there is time to start the interpreter
// that it most likely needs.
func (n *Node) startFirst(ctx context.Context, b *box) (m engine.Machine, ahead *agent.Warm, err error) {
	x := needs{warm: warmFor(b)}
	if b.spec.First != nil {
		x.warm = warmWith(b, *b.spec.First)
	}
	r, err := n.recipe(ctx, b, b.spec.Limits, x)
	if err != nil {
		return nil, nil, err
	}
	m, ahead, err = n.startBy(ctx, b, r)
	if err == nil && b.spec.First == nil && r.warm != nil && ahead == nil {
		ahead = r.warm
		go func() { _ = n.warmUp(n.ctx, m, *r.warm) }()
	}
	return m, ahead, err
}

// start gives the sandbox a clean machine that has what the exec needs.
func (n *Node) start(ctx context.Context, b *box, limits sandbox.Limits, x needs) (engine.Machine, error) {
	r, err := n.recipe(ctx, b, limits, x)
	if err != nil {
		return nil, err
	}
	m, _, err := n.startBy(ctx, b, r)
	return m, err
}

// startBy takes a machine from the pool, or makes one, and says which interpreter runs in it. Where none has the recipe's running, one
// without any will do, but none is made for that while those with it are being made.
func (n *Node) startBy(ctx context.Context, b *box, r recipe) (engine.Machine, *agent.Warm, error) {
	m, warm, kept := n.leaseOne(ctx, b, r)
	if m != nil {
		return m, warm, nil
	}
	m, err := n.make(ctx, r, b.spec.ID, n.takeBlank(ctx, b.spec.Namespace, r, kept))
	return m, nil, err
}

// leaseOne takes a machine from the pool, where it has one that will do.
func (n *Node) leaseOne(ctx context.Context, b *box, r recipe) (m engine.Machine, warm *agent.Warm, kept bool) {
	_, part := phase.Begin(ctx, "lease")
	defer func() {
		part.Note("pool", map[bool]string{true: "miss", false: "hit"}[m == nil])
		part.End(nil)
	}()
	if m, kept = n.lease(ctx, b, r); m != nil {
		return m, r.warm, kept
	}
	if r.warm != nil && kept {
		m = n.leaseSpare(b, r.plain())
	} else if r.warm != nil {
		m, kept = n.lease(ctx, b, r.plain())
	}
	return m, nil, kept
}

// make makes a machine, for a sandbox or for the pool, of its own id or of a blank's.
func (n *Node) make(ctx context.Context, r recipe, sandboxID string, begun engine.Blank) (m engine.Machine, err error) {
	spec := r.spec
	if begun != nil {
		spec.ID, spec.Blank = begun.ID(), begun
	} else if spec.ID, err = n.own(); err != nil {
		return nil, err
	}
	spec.SandboxID = sandboxID
	m, err = n.startAs(ctx, spec, r.network)
	if sandbox.CodeOf(err) == sandbox.Capacity && begun == nil && sandboxID != engine.Pooled && n.pool != nil && n.pool.GiveWay() {
		m, err = n.startAs(ctx, spec, r.network)
	}
	if err != nil {
		n.disown(spec.ID)
	}
	return m, err
}

// startAs makes a machine and connects it.
func (n *Node) startAs(ctx context.Context, spec engine.MachineSpec, way sandbox.Network) (_ engine.Machine, err error) {
	ctx, part := phase.Begin(ctx, "make")
	part.Note("engine", n.engine.name(n.engine.of(spec)))
	defer func() { part.End(err) }()
	limited, cancel := n.bounded(ctx, startTime)
	defer cancel()
	select { // more at once would only be in each other's way
	case n.starting <- struct{}{}:
		defer func() { <-n.starting }()
	case <-limited.Done():
		err := fmt.Errorf("waiting for other machines to start: %w", limited.Err())
		if spec.Blank != nil {
			err = errors.Join(err, spec.Blank.Stop(context.WithoutCancel(ctx)))
		}
		return nil, err
	}
	m, err := n.engine.Start(limited, spec)
	if err != nil {
		return nil, err
	}
	if err := n.connect(limited, way, m); err != nil {
		if spec.Again {
			return nil, errors.Join(err, m.Halt(context.WithoutCancel(ctx)))
		}
		return nil, errors.Join(err, m.Stop(context.WithoutCancel(ctx)))
	}
	return m, nil
}

// environment is what the image, the sandbox and the exec set, in this order.
func environment(b *box, exec [][2]string) [][2]string {
	b.mu.Lock()
	env := append(slices.Clone(b.image.Config.Env), b.deviceEnv()...)
	b.mu.Unlock()
	env = append(env, b.spec.Env...)
	return append(env, exec...)
}

// Inspect implements service.Runtime.
func (n *Node) Inspect(_ context.Context, id string) (service.SandboxState, error) {
	b, err := n.box(id)
	if err != nil {
		return service.SandboxState{}, err
	}
	return b.state(), nil
}

func (b *box) state() service.SandboxState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return service.SandboxState{
		ID: b.spec.ID, Status: b.status, ImageDigest: b.image.Digest, User: b.spec.Security.User, WorkingDir: b.spec.WorkingDir, Isolation: b.isolation, Ports: b.ports, Health: b.health,
	}
}
