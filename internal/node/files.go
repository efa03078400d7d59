package node

import (
	"context"
	"io"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// callsAtOnce is how many calls on files and processes one sandbox answers at once: each takes a thread and some memory of its agent.
const callsAtOnce = 8

// callPatience is how long a call waits for others of its sandbox.
const callPatience = 10 * time.Second

// called finds the machine of a stateful sandbox for a call to its agent, which is counted until done.
func (n *Node) called(ctx context.Context, id string) (b *box, m engine.Machine, done func(), err error) {
	if b, err = n.box(id); err != nil {
		return nil, nil, nil, err
	}
	if b.spec.Mode != sandbox.Stateful {
		return nil, nil, nil, notStateful()
	}
	counted, err := n.begin()
	if err != nil {
		return nil, nil, nil, err
	}
	waits, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	if err := b.calls.Acquire(waits, 1); err != nil {
		counted()
		if ctx.Err() == nil {
			err = sandbox.Errorf(sandbox.Capacity, nil, "the sandbox is busy with %d other calls on its files and processes: try again", callsAtOnce)
		}
		return nil, nil, nil, err
	}
	done = func() { b.calls.Release(1); counted() }
	if m, err = b.itsMachine(); err != nil {
		done()
	}
	return b, m, done, err
}

// call makes one call to a sandbox's agent; it ends with ctx, with the sandbox, and with the server.
func (n *Node) call(ctx context.Context, id string, f func(b *box, c *agent.Conn) error) error {
	b, m, done, err := n.called(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	c, err := m.Call(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer context.AfterFunc(n.ctx, func() { c.Close() })()
	if err = f(b, c); err != nil && n.ctx.Err() != nil {
		return stopping()
	}
	return err
}

// shortCall is a call for which an agent has some time only.
func (n *Node) shortCall(ctx context.Context, id string, f func(b *box, c *agent.Conn) error) error {
	return n.call(ctx, id, func(b *box, c *agent.Conn) error {
		_ = c.SetDeadline(time.Now().Add(agentTime))
		return f(b, c)
	})
}

// Files implements service.Runtime.
func (n *Node) Files(ctx context.Context, id string, op service.FileOp, body io.Reader, out service.FileSink) error {
	call := n.call
	if op.Verb == sandbox.ListFolder || op.Verb == sandbox.MakeFolder {
		call = n.shortCall
	}
	return call(ctx, id, func(b *box, c *agent.Conn) error {
		return c.Files(agent.FileOp{
			Verb: op.Verb, Path: op.Path, Dir: b.spec.WorkingDir, User: b.spec.Security.User,
			Offset: op.Offset, Length: op.Length, Mode: op.Mode,
		}, body, out)
	})
}

// Processes implements service.Runtime.
func (n *Node) Processes(ctx context.Context, id string) (all []sandbox.Process, err error) {
	err = n.shortCall(ctx, id, func(_ *box, c *agent.Conn) (err error) {
		all, err = c.Processes()
		return err
	})
	return all, err
}

// Signal implements service.Runtime.
func (n *Node) Signal(ctx context.Context, id string, pid, signal int) error {
	return n.shortCall(ctx, id, func(_ *box, c *agent.Conn) error { return c.Signal(agent.Signal{Pid: pid, Signal: signal}) })
}

// Control implements service.Runtime.
func (n *Node) Control(_ context.Context, id, execID string, c service.TerminalControl) error {
	b, err := n.box(id)
	if err != nil {
		return err
	}
	x := b.execution(execID)
	if x == nil {
		return sandbox.Errorf(sandbox.NotFound, nil, "the exec does not run any more")
	}
	return x.place.Control(agent.Control{Cols: c.Size.Cols, Rows: c.Size.Rows, Signal: c.Signal})
}

// execution is one that runs, nil for none of that id.
func (b *box) execution(id string) *execution {
	b.mu.Lock()
	defer b.mu.Unlock()
	for x := range b.running {
		if x.id == id {
			return x
		}
	}
	return nil
}
