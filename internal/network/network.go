// Package network owns what machines reach and what reaches them: their egress, and the ports that they publish.
//
// A machine's packets end in this process, in a network stack of the machine's own that runs in user space behind a tun
// device. For each connection that a program opens, the stack's other side decides, dials and copies bytes; no packet
// is ever forwarded, and the host's firewall and routes are left alone (docs/decisions/0040). A published port is a
// socket of this process; what it accepts is copied to a connection made inside the machine's network namespace
// (docs/decisions/0041).
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// Options are what a Network needs.
type Options struct {
	Log        *slog.Logger
	ResolvConf string        // the host's resolver configuration; "" is /etc/resolv.conf
	Idle       time.Duration // after which a UDP session without traffic ends; 0 is 60 s
	Interface  string        // the name of a machine's link
	Bind       netip.Addr    // the address of published ports
	First      int           // the first port that may be published
	Last       int           // and the last
}

// What machines may have open at once. Each egress connection costs one descriptor and up to twice its buffer, each
// published one six descriptors: its two sockets, and two pipes through which the kernel moves the bytes.
const (
	linkConnections = 1024
	portConnections = 1200
	portDescriptors = 6
	fewConnections  = 64  // of a machine or a port when those of all together become scarce
	pending         = 256 // connections of one machine that are being opened
	dialLimit       = 30 * time.Second
)

// Network is the egress and the ports of one node. All methods are safe for concurrent use.
type Network struct {
	log     *slog.Logger
	idle    time.Duration
	routes  *netlink.Handle // of the namespace that Open was called in
	names   *upstream
	buffers budget // bytes of all links' connections together
	links   budget // egress connections of all machines together
	ports   budget // published ones
	asking  budget // names asked for at once
	shares  shares // of the host's ports

	link        string // its name
	bind        netip.Addr
	first, last int
	closing     sync.Once
	turn        atomic.Uint32 // where the search for a free port begins
}

// Open makes a Network that speaks to the world from the network namespace of the caller.
func Open(o Options) (*Network, error) {
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("the host's routes can't be asked: %w", err)
	}
	n := &Network{log: o.Log, idle: o.Idle, routes: routes, names: newUpstream(o.ResolvConf), link: o.Interface, bind: o.Bind, first: o.First, last: o.Last}
	if n.idle == 0 {
		n.idle = time.Minute
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	descriptors := int64(min(files.Cur, 1<<20))
	n.links.most = descriptors / 4
	n.ports.most = descriptors * 2 / 5 / portDescriptors
	n.buffers.most = allBuffers
	n.asking.most = allQuestions
	n.shares.used = map[string]int{}
	return n, nil
}

// Close lets go of what the Network itself holds; links and ports must be closed before. It is idempotent.
func (n *Network) Close() {
	n.closing.Do(func() {
		n.routes.Close()
	})
}

// budget bounds what is in use at once.
type budget struct {
	most int64
	used atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.most {
		b.used.Add(-n)
		return false
	}
	return true
}

// scarce: little of it is left, and who has much must take no more.
func (b *budget) scarce() bool { return b.used.Load() > b.most/6*5 }

func (b *budget) give(n int64) { b.used.Add(-n) }

// errRefused is why a connection is not made: its address may not be reached.
var errRefused = errors.New("the address may not be reached")

// reachable: an address is public, and none of the host's own at this moment.
func (n *Network) reachable(a netip.Addr) error {
	if !sandbox.IsPublic(a) {
		return errRefused
	}
	routes, err := n.routes.RouteGet(a.AsSlice())
	if err != nil {
		return err // no way there
	}
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST {
			return errRefused // the host itself, a broadcast or an anycast address of its networks
		}
	}
	return nil
}

// dial connects to an address. It is judged again at the last moment, on the very address that the kernel is given.
func (n *Network) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: dialLimit, Control: func(_, address string, _ syscall.RawConn) error {
		last, err := netip.ParseAddrPort(address)
		if err != nil || last != to {
			return errRefused
		}
		return n.reachable(last.Addr())
	}}
	return d.DialContext(ctx, network, to.String())
}

// hasIPv6 says whether this host reaches anything by IPv6; no packet is sent.
func (n *Network) hasIPv6() bool {
	_, err := n.routes.RouteGet(net.ParseIP("2000::1"))
	return err == nil
}

// Egress is what a machine may reach.
type Egress struct {
	Mode  string   // none, public or allow
	Allow []string // under allow: hosts, *.hosts and blocks of addresses, see sandbox.ParseDestination
}

// The modes of egress.
const (
	None   = "none"
	Public = "public"
	Allow  = "allow"
)

// Link is the egress of one machine.
type Link struct {
	net    *Network
	rules  *rules
	link   engine.Link
	stack  *inner
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	conns  budget
	asking budget
	rate   *rate.Limiter // of questions
	pace   *rate.Limiter // of packets

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // connections and questions under way
}

// Connect gives a machine its egress. Under none there is nothing to give, and the link is nil.
//
// Errors: NotSupported, the host has no tun devices; Invalid, Allow has what is no destination; Internal.
func (n *Network) Connect(ctx context.Context, inside engine.Network, e Egress) (*Link, error) {
	if e.Mode == None {
		return nil, nil
	}
	r, err := newRules(e)
	if err != nil {
		return nil, err
	}
	v6 := n.hasIPv6()
	link, err := inside.Link(ctx, device(n.link, v6))
	if _, typed := errors.AsType[*sandbox.Error](err); typed {
		return nil, err
	}
	if err != nil {
		return nil, sandbox.Errorf(sandbox.Internal, err, "the machine could not be connected to the network")
	}
	l := &Link{net: n, rules: r, link: link, rate: rate.NewLimiter(questionRate, questionBurst), pace: rate.NewLimiter(packetRate, packetBurst)}
	l.conns.most, l.asking.most = linkConnections, linkQuestions
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if l.stack, err = newInner(l, v6); err != nil {
		l.cancel()
		link.Close()
		return nil, sandbox.Errorf(sandbox.Internal, err, "the machine could not be connected to the network")
	}
	return l, nil
}

// begin counts work of the link, which Close waits for.
func (l *Link) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.work.Add(1)
	}
	return !l.closed
}

// Close takes the link away from a machine that goes on, and ends its connections. It is idempotent, and nil may be
// closed.
func (l *Link) Close() { l.end(func() {}) }

// End does the same for a machine that ends, much faster: the interface, which nobody listens to any more, goes with the
// machine's network namespace. Taken away alone it would cost all links of the host a wait for the kernel's grace periods.
func (l *Link) End() {
	l.end(func() { _ = l.link.Leave() })
}

func (l *Link) end(first func()) {
	if l == nil {
		return
	}
	l.mu.Lock()
	once := !l.closed
	l.closed = true
	l.mu.Unlock()
	if once {
		l.cancel()
		first()
		l.link.Close()
		l.stack.close()
	}
	l.work.Wait()
}

// Connections are those that the machine has open now, its UDP sessions included.
func (l *Link) Connections() int { return int(l.conns.used.Load()) }
