package link

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// Client is the daemon's side of a link. All methods are safe for concurrent use.
type Client struct {
	session *yamux.Session
	calls   atomic.Uint64

	mu        sync.Mutex
	isolation sandbox.Isolation // as it was last heard of
}

// New begins a link over a fresh connection to a guest. The caller closes it.
func New(c net.Conn) (*Client, error) {
	s, err := yamux.Client(c, settings())
	if err != nil {
		return nil, err
	}
	go refuse(s)
	return &Client{session: s}, nil
}

// refuse ends the link with a guest that opens a stream: it has nothing to ask, and what it sends there would be kept in memory.
func refuse(s *yamux.Session) {
	if _, err := s.AcceptStream(); err == nil {
		s.Close()
	}
}

// Close ends the link, and the execs under way over it.
func (c *Client) Close() error { return c.session.Close() }

// Done is closed when the link has ended.
func (c *Client) Done() <-chan struct{} { return c.session.CloseChan() }

const (
	readBuffer = 4 << 10
	askTime    = 10 * time.Second // for what a keeper answers at once
)

// past is a deadline that is over.
var past = time.Unix(1, 0)

// call opens a stream with a request and reads its answer. ctx bounds both, not what the stream then carries.
func (c *Client) call(ctx context.Context, q request) (*conn, answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, answer{}, lost(err)
	}
	stream, err := c.session.OpenStream()
	if err != nil {
		return nil, answer{}, lost(err)
	}
	q.ID = c.calls.Add(1)
	stop := context.AfterFunc(ctx, func() {
		c.cancel(q.ID)
		_ = stream.SetDeadline(past)
	})
	s := newConn(stream, bufio.NewReaderSize(stream, readBuffer))
	var a answer
	if err = agent.WriteJSON(stream, kindRequest, q); err == nil {
		err = readJSON(s.r, kindAnswer, maxAnswer, &a)
	}
	cut := !stop()
	switch {
	case err != nil:
		err = lost(err)
	case cut:
		err = lost(ctx.Err())
	case a.Error != nil && a.Error.Errno != 0 && q.Dial != nil:
		err = &net.OpError{Op: "dial", Net: q.Dial.Network, Err: a.Error.Errno}
	case a.Error != nil:
		err = a.Error.err()
	}
	if err != nil {
		stream.Close()
		return nil, a, err
	}
	return s, a, nil
}

// cancel says that nobody waits for a call any more.
func (c *Client) cancel(id uint64) {
	if stream, err := c.session.OpenStream(); err == nil {
		_ = stream.SetDeadline(time.Now().Add(askTime))
		_ = agent.WriteJSON(stream, kindRequest, request{Cancel: id})
		stream.Close()
	}
}

// do is a call that has nothing to carry.
func (c *Client) do(ctx context.Context, q request) (answer, error) {
	s, a, err := c.call(ctx, q)
	if err == nil {
		s.Close()
	}
	return a, err
}

// Hello asks who is there.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	a, err := c.do(ctx, request{Hello: true})
	if err == nil && a.Hello == nil {
		err = lost(agent.ErrFrame)
	}
	if err != nil {
		return Hello{}, err
	}
	return *a.Hello, nil
}

// Renew makes a guest its own: it comes before Start.
func (c *Client) Renew(ctx context.Context, r Renewal) error {
	_, err := c.do(ctx, request{Renew: &r})
	return err
}

// Rehearse lets a guest make a machine that nobody will have, and remove it, before a snapshot is taken.
func (c *Client) Rehearse(ctx context.Context, spec engine.MachineSpec) error {
	_, err := c.do(ctx, request{Rehearse: &spec})
	return err
}

// Start makes the guest's one machine; the paths of spec are the guest's. Errors: those of engine.Engine's Start.
func (c *Client) Start(ctx context.Context, spec engine.MachineSpec) error {
	a, err := c.do(ctx, request{Start: &spec})
	if err == nil && a.Isolation != nil {
		c.mu.Lock()
		c.isolation = *a.Isolation
		c.mu.Unlock()
	}
	return err
}

// Halt ends the machine, so that all its files are on its disks; then the guest turns itself off.
func (c *Client) Halt(ctx context.Context) error {
	_, err := c.do(ctx, request{Halt: true})
	return err
}

// Warm is engine.Machine's.
func (c *Client) Warm(ctx context.Context, w agent.Warm) error {
	_, err := c.do(ctx, request{Warm: &w})
	return err
}

// Attach is engine.Machine's; the source is the guest's.
func (c *Client) Attach(ctx context.Context, m engine.Mount) error {
	_, err := c.do(ctx, request{Attach: &m})
	return err
}

// Detach is engine.Machine's. released: what Attach showed there may be exchanged for something else.
func (c *Client) Detach(ctx context.Context, path string) (released bool, err error) {
	a, err := c.do(ctx, request{Detach: path})
	return a.Released, err
}

// Release says whether nothing in the guest uses a device that Attach showed once, so that it may be exchanged for something else.
func (c *Client) Release(ctx context.Context, device string) bool {
	a, err := c.do(ctx, request{Release: device})
	return err == nil && a.Released
}

// Ping is engine.Machine's.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.do(ctx, request{Ping: true})
	return err
}

// Call is engine.Machine's.
func (c *Client) Call(ctx context.Context) (*agent.Conn, error) {
	s, _, err := c.call(ctx, request{Call: true})
	if err != nil {
		return nil, err
	}
	return agent.Parked(s.Conn, s.r), nil
}

// Isolation is what holds inside the guest, as its keeper reads it there.
func (c *Client) Isolation(ctx context.Context) sandbox.Isolation {
	a, err := c.do(ctx, request{Isolation: true})
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && a.Isolation != nil {
		c.isolation = *a.Isolation
	}
	return c.isolation
}

// Park is engine.Machine's.
func (c *Client) Park(ctx context.Context, x engine.ExecSpec) (*Exec, error) {
	s, a, err := c.call(ctx, request{Park: &x})
	if err != nil {
		return nil, err
	}
	if a.Isolation == nil {
		s.Close()
		return nil, lost(agent.ErrFrame)
	}
	return &Exec{c: c, id: x.ID, stream: agent.Parked(s.Conn, s.r), isolation: *a.Isolation, warm: a.Warm}, nil
}

// Resume is the place of an exec that a former daemon left running.
func (c *Client) Resume(ctx context.Context, id string) (*Exec, error) {
	s, _, err := c.call(ctx, request{Resume: id})
	if err != nil {
		return nil, err
	}
	return &Exec{c: c, id: id, stream: agent.Parked(s.Conn, s.r), isolation: c.Isolation(ctx)}, nil
}

// Exec implements engine.Exec but for what the engine adds to Isolation.
type Exec struct {
	c         *Client
	id        string
	stream    *agent.Conn
	isolation sandbox.Isolation
	warm      bool
}

// Run implements engine.Exec.
func (x *Exec) Run(run agent.Run, feed agent.Feed) (agent.Exit, []agent.File, error) {
	return x.stream.Run(run, feed)
}

// Warm implements engine.Exec.
func (x *Exec) Warm() bool { return x.warm }

// Isolation implements engine.Exec.
func (x *Exec) Isolation() sandbox.Isolation { return x.isolation }

// Control implements engine.Exec.
func (x *Exec) Control(c agent.Control) error { return x.stream.Control(c) }

// Kill implements engine.Exec.
func (x *Exec) Kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	_, err := x.c.do(ctx, request{Kill: x.id})
	return err
}

// Usage implements engine.Exec.
func (x *Exec) Usage() (sandbox.Usage, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	a, err := x.c.do(ctx, request{Usage: x.id})
	if err != nil || a.Usage == nil {
		return sandbox.Usage{}, false
	}
	return *a.Usage, a.OOM
}

// Close implements engine.Exec.
func (x *Exec) Close() {
	_ = x.stream.SetDeadline(past) // a stream that is closed can still be read from
	x.stream.Close()
}

// Network is the inside of the machine's network.
func (c *Client) Network() engine.Network { return inside{c} }

type inside struct{ c *Client }

// Close implements engine.Network.
func (inside) Close() error { return nil }

// Dial implements engine.Network.
func (n inside) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	s, _, err := n.c.call(ctx, request{Dial: &dial{network, to}})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Link implements engine.Network.
func (n inside) Link(ctx context.Context, l engine.LinkSpec) (engine.Link, error) {
	s, _, err := n.c.call(ctx, request{Link: &l})
	if err != nil {
		return nil, err
	}
	return packets{s}, nil
}

type packets struct{ *conn }

// Leave implements engine.Link: the link's end goes with the guest.
func (packets) Leave() error { return nil }

// Listen implements engine.Network.
func (n inside) Listen(ctx context.Context, address string) (net.Listener, error) {
	s, _, err := n.c.call(ctx, request{Listen: address})
	if err != nil {
		return nil, err
	}
	l := &listener{c: n.c, stream: s, address: address}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// listener is one in a guest.
type listener struct {
	c       *Client
	stream  *conn
	address string
	ctx     context.Context
	cancel  context.CancelFunc
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	s, _, err := l.c.call(l.ctx, request{Accept: l.address})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", net.ErrClosed, err)
	}
	return s, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.cancel()
	return l.stream.Close()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr {
	a, _ := netip.ParseAddrPort(l.address)
	return net.TCPAddrFromAddrPort(a)
}
