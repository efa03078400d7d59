package node

import (
	"context"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Stop implements service.Runtime.
func (n *Node) Stop(ctx context.Context, id string) (err error) {
	b, done, err := n.stateful(id)
	if err != nil {
		return err
	}
	defer done()
	b.mu.Lock()
	m := b.machine
	switch {
	case b.gone:
		b.mu.Unlock()
		return notFound()
	case m == nil: // stopped or lost: there is nothing to stop
		b.status = sandbox.Stopped
		b.mu.Unlock()
		return nil
	}
	b.machine, b.remains, b.status = nil, m.Handle().ID, sandbox.Stopped
	b.health = sandbox.Health{Status: sandbox.HealthNone}
	b.mu.Unlock()
	_, part := phase.Begin(ctx, "stop")
	defer func() { part.End(err) }()
	b.cancelAll()
	n.disconnect(m)
	if err := m.Halt(context.WithoutCancel(ctx)); err != nil {
		b.mu.Lock()
		b.status = sandbox.LostNow
		b.mu.Unlock()
		n.news.tell(service.Event{SandboxID: id, Status: sandbox.LostNow})
		return sandbox.Errorf(sandbox.Internal, err, "the machine did not end in time; its files are kept, try again")
	}
	return nil
}

// Start implements service.Runtime.
func (n *Node) Start(ctx context.Context, id string) (service.SandboxState, error) {
	b, done, err := n.stateful(id)
	if err != nil {
		return service.SandboxState{}, err
	}
	defer done()
	b.mu.Lock()
	m := b.machine
	b.mu.Unlock()
	if m != nil && !alive(m) { // its watcher waits for us
		n.bury(b, m)
	}
	b.mu.Lock()
	gone, remains, runs := b.gone, b.remains, b.machine != nil
	b.mu.Unlock()
	switch {
	case gone:
		return service.SandboxState{}, notFound()
	case runs:
		return b.state(), nil
	case remains == "":
		return service.SandboxState{}, sandbox.Errorf(sandbox.Lost, nil, "the sandbox's files are gone: delete it and create it anew")
	}
	if err := n.engine.Halt(ctx, engine.Handle{ID: remains, SandboxID: id, Stateful: true}); err != nil { // where it died, something may hang
		return service.SandboxState{}, sandbox.Errorf(sandbox.Internal, err, "what the sandbox's last machine left could not be ended; try again")
	}
	r, err := n.recipe(ctx, b, b.spec.Limits, needs{})
	if err != nil {
		return service.SandboxState{}, err
	}
	r.spec.ID, r.spec.SandboxID, r.spec.Again = remains, id, true
	if m, err = n.startAs(ctx, r.spec, r.network); err != nil {
		return service.SandboxState{}, err
	}
	b.mu.Lock()
	b.machine, b.remains, b.status, b.isolation = m, "", sandbox.Running, m.Isolation()
	b.mu.Unlock()
	n.attend(b, m)
	return b.state(), nil
}

// stateful finds a stateful sandbox for a call that changes it, which is counted and has its turn until done. Errors: NotFound, NotStateful, Lost.
func (n *Node) stateful(id string) (*box, func(), error) {
	b, err := n.box(id)
	if err != nil {
		return nil, nil, err
	}
	if b.spec.Mode != sandbox.Stateful {
		return nil, nil, notStateful()
	}
	counted, err := n.begin()
	if err != nil {
		return nil, nil, err
	}
	b.change.Lock()
	return b, func() { b.change.Unlock(); counted() }, nil
}

func notStateful() error {
	return sandbox.Errorf(sandbox.NotStateful, nil, "only a stateful sandbox can do that: create one with mode stateful")
}

// cancelAll ends what runs in the sandbox and waits a moment, so that each program answers with its output before its
// machine goes.
func (b *box) cancelAll() {
	b.mu.Lock()
	waiting := make([]*execution, 0, len(b.running))
	for x := range b.running {
		x.end(endCancelled)
		waiting = append(waiting, x)
	}
	b.mu.Unlock()
	patience, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, x := range waiting {
		select {
		case <-x.done:
		case <-patience.Done():
		}
	}
}

// Delete implements service.Runtime. One that failed can be called again.
func (n *Node) Delete(ctx context.Context, id string) (err error) {
	_, part := phase.Begin(ctx, "delete")
	defer func() { part.End(err) }()
	if done, err := n.begin(); err == nil { // a closed node deletes, too
		defer done()
	}
	n.mu.Lock()
	b, ok := n.boxes[id]
	n.mu.Unlock()
	if !ok {
		return nil
	}
	b.mu.Lock()
	if !b.gone {
		close(b.ended)
	}
	b.gone = true // from now on nothing begins in it
	b.mu.Unlock()
	b.change.Lock()
	defer b.change.Unlock()
	n.unpublish(b)
	b.cancelAll()
	err = n.removeMachine(b)
	if b.spec.First != nil { // nobody waits for this call, but a quota counts until it returns
		b.ends.Wait()
	}
	if err == nil {
		err = n.strip(b)
	}
	if err != nil {
		return sandbox.Errorf(sandbox.Internal, err, "not everything of the sandbox could be removed: try again, as the server does every minute")
	}
	n.mu.Lock()
	delete(n.boxes, id)
	n.mu.Unlock()
	return nil
}

// removeMachine removes the machine of a sandbox that is deleted, or what is left of it.
func (n *Node) removeMachine(b *box) error {
	b.mu.Lock()
	m, remains := b.machine, b.remains
	b.machine = nil
	if m != nil {
		b.remains = m.Handle().ID
	}
	b.mu.Unlock()
	switch {
	case m != nil:
		return n.remove(m)
	case remains != "":
		defer n.disown(remains)
		return n.engine.Remove(context.Background(), engine.Handle{ID: remains, SandboxID: b.spec.ID, Stateful: true})
	}
	return nil
}
