package network

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// Target gives the inside of the machine that answers at a port now; nil for none.
type Target func() engine.Network

// Published is one open port.
type Published struct {
	Port sandbox.Port // with its host port

	net    *Network
	owner  string
	target Target
	stream net.Listener    // of tcp
	socket *net.UDPConn    // of udp
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	conns  budget

	mu       sync.Mutex
	closed   bool
	open     map[*through]bool               // tcp connections
	sessions map[netip.AddrPort]*portSession // udp, by client
}

// insideTime is how long a server inside may take to accept.
const insideTime = 10 * time.Second

// Publish opens a port of a namespace's: host port 0 is any that is free.
//
// Errors: PortNotAllowed, PortInUse, QuotaExceeded (the namespace has its share), Capacity (none is free).
func (n *Network) Publish(namespace string, p sandbox.Port, target Target) (*Published, error) {
	if !n.shares.take(namespace, n.share()) {
		e := sandbox.Errorf(sandbox.QuotaExceeded, nil, "the namespace has published %d ports already, as many as one may, which is a quarter of ports.range: close some first, or have the operator widen it", n.share())
		e.RetryAfterSecs = 1
		return nil, e
	}
	return n.publish(namespace, p, target)
}

// Republish opens a port again that a namespace has already, however many it has.
//
// Errors: PortNotAllowed, PortInUse.
func (n *Network) Republish(namespace string, p sandbox.Port, target Target) (*Published, error) {
	n.shares.take(namespace, math.MaxInt)
	return n.publish(namespace, p, target)
}

// share is how many ports one namespace may have.
func (n *Network) share() int { return (n.last - n.first + 1 + 3) / 4 }

// shares counts the ports of each namespace.
type shares struct {
	mu   sync.Mutex
	used map[string]int
}

func (s *shares) take(of string, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[of] >= most {
		return false
	}
	s.used[of]++
	return true
}

func (s *shares) give(of string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[of]--; s.used[of] == 0 {
		delete(s.used, of)
	}
}

func (n *Network) publish(namespace string, p sandbox.Port, target Target) (*Published, error) {
	pub := &Published{Port: p, net: n, owner: namespace, target: target, open: map[*through]bool{}, sessions: map[netip.AddrPort]*portSession{}}
	pub.conns.most = portConnections
	if err := pub.listen(); err != nil {
		n.shares.give(namespace)
		return nil, err
	}
	pub.ctx, pub.cancel = context.WithCancel(context.Background())
	if pub.stream != nil {
		pub.work.Go(pub.accept)
	} else {
		pub.work.Go(pub.receive)
	}
	return pub, nil
}

func (p *Published) listen() error {
	n := p.net
	if fixed := p.Port.HostPort; fixed != 0 {
		if fixed < n.first || fixed > n.last {
			return sandbox.Errorf(sandbox.PortNotAllowed, nil, "host port %d is outside of those that the operator gives, %d to %d; 0 takes a free one", fixed, n.first, n.last)
		}
		err := p.bind(fixed)
		if errors.Is(err, syscall.EADDRINUSE) {
			return sandbox.Errorf(sandbox.PortInUse, err, "host port %d is taken; 0 takes a free one", fixed)
		}
		return unbound(err)
	}
	count := n.last - n.first + 1
	for range count {
		port := n.first + int(n.turn.Add(1)-1)%count
		if err := p.bind(port); !errors.Is(err, syscall.EADDRINUSE) {
			return unbound(err)
		}
	}
	e := sandbox.Errorf(sandbox.Capacity, nil, "all ports from %d to %d are taken: delete sandboxes with ports, or have the operator widen ports.range", n.first, n.last)
	e.RetryAfterSecs = 60
	return e
}

func unbound(err error) error {
	if err == nil {
		return nil
	}
	return sandbox.Errorf(sandbox.Internal, err, "the port could not be opened")
}

// bind takes the family of the address alone: an unspecified one would else mean both.
func (p *Published) bind(port int) (err error) {
	family := "6"
	if p.net.bind.Is4() {
		family = "4"
	}
	at := netip.AddrPortFrom(p.net.bind, uint16(port))
	if p.Port.Protocol == "udp" {
		p.socket, err = net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(at))
	} else {
		p.stream, err = net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(at))
	}
	if err == nil {
		p.Port.HostPort = port
	}
	return err
}

// Reset ends all connections; the port stays open.
func (p *Published) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range p.open {
		t.reset()
	}
	for _, s := range p.sessions {
		s.end()
	}
}

// Close closes the port and ends all its connections. It is idempotent.
func (p *Published) Close() {
	p.mu.Lock()
	again := p.closed
	p.closed = true
	p.mu.Unlock()
	if !again {
		defer p.net.shares.give(p.owner) // when the host port is free
	}
	p.cancel()
	if p.stream != nil {
		p.stream.Close()
	} else {
		p.socket.Close()
	}
	p.Reset()
	p.work.Wait()
}

func (p *Published) accept() {
	for {
		conn, err := p.stream.Accept()
		if p.ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil { // no descriptors: others give some back
			time.Sleep(10 * time.Millisecond)
			continue
		}
		p.admit(conn.(*net.TCPConn))
	}
}

// admit begins to copy, or ends the connection at once.
func (p *Published) admit(out *net.TCPConn) {
	t := &through{out: out}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || p.greedy() || !p.conns.take(1):
		t.reset()
		return
	case !p.net.ports.take(1):
		p.conns.give(1)
		t.reset()
		return
	}
	p.open[t] = true
	p.work.Go(func() {
		defer func() {
			p.mu.Lock()
			delete(p.open, t)
			p.mu.Unlock()
			p.net.ports.give(1)
			p.conns.give(1)
		}()
		t.run(p)
	})
}

// greedy: it has many connections while there is little left for other ports.
func (p *Published) greedy() bool {
	return p.net.ports.scarce() && p.conns.used.Load() >= fewConnections
}

// Dial connects to a server inside a machine by its loopback, IPv4 first: programs listen there by default, and all that
// listen everywhere are found there, too.
func (n *Network) Dial(ctx context.Context, inside engine.Network, protocol string, port int) (net.Conn, error) {
	if inside == nil {
		return nil, syscall.ECONNREFUSED
	}
	conn, err := inside.Dial(ctx, protocol, netip.AddrPortFrom(loopback4, uint16(port)))
	if err != nil && ctx.Err() == nil {
		if six, err6 := inside.Dial(ctx, protocol, netip.AddrPortFrom(netip.IPv6Loopback(), uint16(port))); err6 == nil {
			return six, nil
		}
	}
	return conn, err
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// through is one tcp connection from a client to a server inside.
type through struct {
	out *net.TCPConn

	mu    sync.Mutex
	in    net.Conn
	ended bool
}

// reset ends both sides so that they see it was no ordinary end.
func (t *through) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for _, c := range []net.Conn{t.out, t.in} {
		if tcp, is := c.(*net.TCPConn); is {
			_ = tcp.SetLinger(0)
		}
		if c != nil {
			c.Close()
		}
	}
}

func (t *through) run(p *Published) {
	ctx, cancel := context.WithTimeout(p.ctx, insideTime)
	conn, err := p.net.Dial(ctx, p.target(), "tcp", p.Port.GuestPort)
	cancel()
	if err != nil {
		t.reset()
		return
	}
	t.mu.Lock()
	t.in = conn
	ended := t.ended
	t.mu.Unlock()
	if ended {
		t.reset()
		return
	}
	var back sync.WaitGroup
	back.Go(func() { t.pass(t.out, t.in) })
	t.pass(t.in, t.out)
	back.Wait()
	t.out.Close()
	t.in.Close()
}

// pass copies one way, between sockets by splice(2): no byte comes into this process. The end of one way is passed on alone.
func (t *through) pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		t.reset()
		return
	}
	if half, can := to.(interface{ CloseWrite() error }); can {
		_ = half.CloseWrite()
	}
}

// Connections are those that are open now; of udp, its sessions.
func (p *Published) Connections() int { return int(p.conns.used.Load()) }
