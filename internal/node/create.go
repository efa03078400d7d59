package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/image"
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
	state, err := n.create(ctx, s)
	if err != nil && n.ctx.Err() != nil {
		err = stopping()
	}
	return state, err
}

func (n *Node) create(ctx context.Context, s service.SandboxSpec) (service.SandboxState, error) {
	img, err := n.image(ctx, s.Image, s.CreateWait)
	if err != nil {
		return service.SandboxState{}, err
	}
	b := &box{spec: s, image: img, running: map[*execution]bool{}}
	m, err := n.start(ctx, b, s.Limits)
	if err != nil {
		return service.SandboxState{}, err
	}
	b.machine, b.isolation = m, m.Isolation()
	n.mu.Lock()
	closed := n.closed
	if !closed {
		n.boxes[s.ID] = b
	}
	n.mu.Unlock()
	if closed {
		n.endNow(m)
		return service.SandboxState{}, stopping()
	}
	if s.Mode == sandbox.Stateful {
		go n.watch(b, m)
	}
	return b.state(), nil
}

// image waits for an image that may first have to be made.
func (n *Node) image(ctx context.Context, ref string, wait time.Duration) (image.Image, error) {
	if wait <= 0 {
		wait = time.Minute
	}
	limited, cancel := n.bounded(ctx, wait)
	defer cancel()
	img, err := n.images.Ensure(limited, ref, nil)
	if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		text := "is being made"
		if p, ok := n.images.Building(ref); ok {
			text = fmt.Sprintf("is being made: %s %d of %d", p.Phase, p.Done, p.Total)
		}
		e := sandbox.Errorf(sandbox.ImagePreparing, nil, "the image %s; try again", text)
		e.RetryAfterSecs = 5
		return img, e
	}
	return img, err
}

// imageOf is the sandbox's image; after a restart it is first looked for.
func (n *Node) imageOf(ctx context.Context, b *box) (image.Image, error) {
	b.mu.Lock()
	img := b.image
	b.mu.Unlock()
	if len(img.Layers) > 0 {
		return img, nil
	}
	img, err := n.image(ctx, b.spec.Image, b.spec.CreateWait)
	if err == nil {
		b.mu.Lock()
		b.image = img
		b.mu.Unlock()
	}
	return img, err
}

// startTime is how long the making of a machine may take.
const startTime = time.Minute

// start makes a machine of the sandbox.
func (n *Node) start(ctx context.Context, b *box, limits sandbox.Limits) (engine.Machine, error) {
	img, err := n.imageOf(ctx, b)
	if err != nil {
		return nil, err
	}
	id, err := n.own()
	if err != nil {
		return nil, err
	}
	spec := engine.MachineSpec{
		ID: id, SandboxID: b.spec.ID, Stateful: b.spec.Mode == sandbox.Stateful, Layers: img.Layers, Limits: limits,
		Security: b.spec.Security, WorkingDir: b.spec.WorkingDir, Env: environment(b, nil), Programs: languages[b.spec.Language].programs,
	}
	limited, cancel := n.bounded(ctx, startTime)
	defer cancel()
	m, err := n.engine.Start(limited, spec)
	if err != nil {
		n.disown(id)
		return nil, err
	}
	return m, nil
}

// environment is what the image, the sandbox and the exec set, in this order.
func environment(b *box, exec [][2]string) [][2]string {
	b.mu.Lock()
	env := slices.Clone(b.image.Config.Env)
	b.mu.Unlock()
	env = append(env, b.spec.Env...)
	return append(env, exec...)
}

// watch notes that a stateful sandbox's machine has died by itself. After Close it is the next daemon's.
func (n *Node) watch(b *box, m engine.Machine) {
	select {
	case <-m.Dead():
	case <-n.ctx.Done():
		return
	}
	b.mu.Lock()
	mine := b.machine == m && !b.gone
	if mine {
		b.machine, b.lost, b.remains = nil, true, m.Handle().ID
	}
	b.mu.Unlock()
	if mine {
		n.log.Warn("a stateful sandbox's machine died; its files stay", "sandbox", b.spec.ID)
		if err := m.Halt(context.Background()); err != nil {
			n.log.Error("what a dead machine left could not be ended", "sandbox", b.spec.ID, "error", err)
		}
	}
}

// Delete implements service.Runtime.
func (n *Node) Delete(_ context.Context, id string) error {
	if done, err := n.begin(); err == nil { // a closed node deletes, too
		defer done()
	}
	n.mu.Lock()
	b, ok := n.boxes[id]
	delete(n.boxes, id)
	n.mu.Unlock()
	if !ok {
		return nil
	}
	b.mu.Lock()
	b.gone = true
	m, remains := b.machine, b.remains
	b.machine = nil
	waiting := make([]*execution, 0, len(b.running))
	for x := range b.running {
		x.end(endCancelled)
		waiting = append(waiting, x)
	}
	b.mu.Unlock()
	patience, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, x := range waiting { // so that each answers with its output before its machine goes
		select {
		case <-x.done:
		case <-patience.Done():
		}
	}
	err := error(nil)
	switch {
	case m != nil:
		err = n.remove(m)
	case remains != "":
		err = n.engine.Remove(context.Background(), engine.Handle{ID: remains, SandboxID: id, Stateful: true})
		n.disown(remains)
	}
	if err != nil {
		return sandbox.Errorf(sandbox.Internal, err, "not everything of the sandbox could be removed: it is tried again every minute")
	}
	return nil
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
	s := service.SandboxState{ID: b.spec.ID, Status: sandbox.Running, ImageDigest: b.image.Digest, Isolation: b.isolation}
	if b.lost {
		s.Status = sandbox.LostNow
	}
	return s
}
