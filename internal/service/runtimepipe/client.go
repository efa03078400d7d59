package runtimepipe

import (
	"context"
	"io"
	"sync"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Client is a service.Runtime at the other end of a stream.
type Client struct {
	line *line
	mu   sync.Mutex
	last uint64
	open map[uint64]chan message // calls under way; nil when the stream has ended
}

var _ service.Runtime = (*Client)(nil)

// New makes the runtime that Serve has at the other end of conn.
func New(conn io.ReadWriteCloser) *Client {
	c := &Client{line: newLine(conn), open: map[uint64]chan message{}}
	go c.listen()
	return c
}

// Hangup ends the stream: calls under way end as Lost here and are cancelled over there.
func (c *Client) Hangup() error { return c.line.conn.Close() }

// listen hands what comes to the calls. None is held up by another: a call has at most a piece of each stream, one
// question for more to read, the word that it has started and its answer under way, for which its channel has room.
func (c *Client) listen() {
	defer c.line.conn.Close()
	for {
		m, err := c.line.receive()
		c.mu.Lock()
		if err != nil {
			for _, call := range c.open {
				close(call)
			}
			c.open = nil
			c.mu.Unlock()
			return
		}
		call := c.open[m.Call]
		c.mu.Unlock()
		select {
		case call <- m:
		default: // nobody waits for it, or the other side sends more than it may
		}
	}
}

// call makes one call and waits for its answer, also when ctx ends: what was cancelled still says how it ended.
func (c *Client) call(ctx context.Context, q request, out service.Streams) (answer, error) {
	return c.carry(ctx, q, carried{Streams: out})
}

// carried is what a call reads and tells beside its answer.
type carried struct {
	service.Streams
	events chan<- service.Event
	sink   service.FileSink
}

// carry is call for one that has more to tell than output.
func (c *Client) carry(ctx context.Context, q request, with carried) (answer, error) {
	q.Reads = with.Stdin != nil
	id, messages := c.begin()
	if messages == nil {
		return answer{}, lost()
	}
	defer c.end(id)
	if err := c.line.send(message{Call: id, Request: &q}); err != nil {
		return answer{}, lost()
	}
	defer context.AfterFunc(ctx, func() { _ = c.line.send(message{Call: id, Cancel: true}) })()
	for m := range messages {
		switch {
		case m.Output != nil && m.Output.Stream == 0:
			select {
			case with.Started <- struct{}{}:
			default: // nobody wants to know
			}
		case m.Output != nil:
			_ = c.line.send(message{Call: id, Taken: &taken{m.Output.Stream, with.take(*m.Output) != nil}})
		case m.Want && with.Stdin != nil:
			go c.feed(id, with.Stdin) // a reader may wait long
		case m.Event != nil:
			select {
			case with.events <- *m.Event:
			case <-ctx.Done():
			}
			_ = c.line.send(message{Call: id, Taken: &taken{Stream: 1}})
		case m.Answer != nil:
			if m.Answer.Error != nil {
				return *m.Answer, m.Answer.Error
			}
			return *m.Answer, nil
		}
	}
	return answer{}, lost()
}

// take hands on a piece of output.
func (x carried) take(o output) error {
	switch {
	case o.Found != nil && x.sink != nil:
		return x.sink.Found(*o.Found)
	case x.sink != nil:
		_, err := x.sink.Write(o.Bytes)
		return err
	}
	w := x.Stdout
	if o.Stream == 2 {
		w = x.Stderr
	}
	if w == nil {
		return errUnwanted
	}
	_, err := w.Write(o.Bytes)
	return err
}

// feed sends the next piece of what a call reads.
func (c *Client) feed(id uint64, from io.Reader) {
	b := make([]byte, maxPiece)
	n, err := io.ReadAtLeast(from, b, 1)
	in := input{Bytes: b[:n], End: err == io.EOF}
	if err != nil && !in.End {
		in.Error = plain(err)
	}
	_ = c.line.send(message{Call: id, Input: &in})
}

func (c *Client) begin() (uint64, chan message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		return 0, nil
	}
	c.last++
	messages := make(chan message, 8)
	c.open[c.last] = messages
	return c.last, messages
}

func (c *Client) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, id)
}

func lost() error {
	return sandbox.Errorf(sandbox.Lost, nil, "the runtime is gone: try again in a moment")
}

// Sync implements service.Runtime.
func (c *Client) Sync(ctx context.Context, known []service.SandboxSpec) ([]service.SandboxState, error) {
	a, err := c.call(ctx, request{Method: "sync", Known: known}, service.Streams{})
	return a.States, err
}

// Create implements service.Runtime.
func (c *Client) Create(ctx context.Context, s service.SandboxSpec) (service.SandboxState, error) {
	return c.state(ctx, request{Method: "create", Sandbox: &s})
}

// Inspect implements service.Runtime.
func (c *Client) Inspect(ctx context.Context, id string) (service.SandboxState, error) {
	return c.state(ctx, request{Method: "inspect", ID: id})
}

func (c *Client) state(ctx context.Context, q request) (service.SandboxState, error) {
	a, err := c.call(ctx, q, service.Streams{})
	if err == nil && len(a.States) != 1 {
		err = sandbox.Errorf(sandbox.Internal, nil, "the runtime answered %s with %d states", q.Method, len(a.States))
	}
	if err != nil {
		return service.SandboxState{}, err
	}
	return a.States[0], nil
}

// Exec implements service.Runtime.
func (c *Client) Exec(ctx context.Context, id string, e service.ExecSpec, out service.Streams) (service.ExecOutcome, error) {
	a, err := c.call(ctx, request{Method: "exec", ID: id, Exec: &e}, out)
	if err == nil && a.Outcome == nil {
		err = sandbox.Errorf(sandbox.Internal, nil, "the runtime answered exec with no outcome")
	}
	if err != nil {
		return service.ExecOutcome{}, err
	}
	return *a.Outcome, nil
}

// Stop implements service.Runtime.
func (c *Client) Stop(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{Method: "stop", ID: id}, service.Streams{})
	return err
}

// Start implements service.Runtime.
func (c *Client) Start(ctx context.Context, id string) (service.SandboxState, error) {
	return c.state(ctx, request{Method: "start", ID: id})
}

// OpenPort implements service.Runtime.
func (c *Client) OpenPort(ctx context.Context, id string, p sandbox.Port) (sandbox.Port, error) {
	a, err := c.call(ctx, request{Method: "open port", ID: id, Port: &p}, service.Streams{})
	if err == nil && a.Port == nil {
		err = sandbox.Errorf(sandbox.Internal, nil, "the runtime answered open port with no port")
	}
	if err != nil {
		return sandbox.Port{}, err
	}
	return *a.Port, nil
}

// ClosePort implements service.Runtime.
func (c *Client) ClosePort(ctx context.Context, id string, guestPort int, protocol string) error {
	p := sandbox.Port{GuestPort: guestPort, Protocol: protocol}
	_, err := c.call(ctx, request{Method: "close port", ID: id, Port: &p}, service.Streams{})
	return err
}

// Images implements service.Runtime.
func (c *Client) Images(ctx context.Context, namespace string, operator bool) ([]sandbox.ImageInfo, error) {
	a, err := c.call(ctx, request{Method: "images", Namespace: namespace, Operator: operator}, service.Streams{})
	return a.Images, err
}

// Watch implements service.Runtime.
func (c *Client) Watch(ctx context.Context, events chan<- service.Event) error {
	_, err := c.carry(ctx, request{Method: "watch"}, carried{events: events})
	return err
}

// Control implements service.Runtime.
func (c *Client) Control(ctx context.Context, id, execID string, x service.TerminalControl) error {
	_, err := c.call(ctx, request{Method: "control", ID: id, ExecID: execID, Control: &x}, service.Streams{})
	return err
}

// Files implements service.Runtime.
func (c *Client) Files(ctx context.Context, id string, op service.FileOp, body io.Reader, out service.FileSink) error {
	_, err := c.carry(ctx, request{Method: "files", ID: id, Files: &op}, carried{Streams: service.Streams{Stdin: body}, sink: out})
	return err
}

// Processes implements service.Runtime.
func (c *Client) Processes(ctx context.Context, id string) ([]sandbox.Process, error) {
	a, err := c.call(ctx, request{Method: "processes", ID: id}, service.Streams{})
	return a.Processes, err
}

// Signal implements service.Runtime.
func (c *Client) Signal(ctx context.Context, id string, pid, signal int) error {
	_, err := c.call(ctx, request{Method: "signal", ID: id, Pid: pid, Signal: signal}, service.Streams{})
	return err
}

// Delete implements service.Runtime.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{Method: "delete", ID: id}, service.Streams{})
	return err
}

// Close implements service.Runtime.
func (c *Client) Close(ctx context.Context, stopAll bool) error {
	_, err := c.call(ctx, request{Method: "close", StopAll: stopAll}, service.Streams{})
	return err
}
