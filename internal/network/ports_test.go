package network_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/sandbox"
)

const first, last = 31000, 31009

func ports(bind string) network.Options {
	return network.Options{Bind: netip.MustParseAddr(bind), First: first, Last: last, Idle: 300 * time.Millisecond}
}

// listenInside is a server in the machine; serve gets each connection.
func (m *machine) listenInside(at string, serve func(*net.TCPConn)) int {
	m.t.Helper()
	var l net.Listener
	if err := netns.In(m.ns, func() (err error) { l, err = net.Listen("tcp", at); return err }); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
	_ = c.Close()
}

func (m *machine) publish(n *network.Network, protocol string, port int) *network.Published {
	m.t.Helper()
	p, err := n.Publish(sandbox.NewID("ns_"), sandbox.Port{GuestPort: port, Protocol: protocol}, func() engine.Network { return m.inside })
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(p.Close)
	return p
}

func client(t testing.TB, p *network.Published) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", at("127.0.0.1", strconv.Itoa(p.Port.HostPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func TestATCPPortReachesTheLoopbackInside(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		c := client(t, m.publish(n, "tcp", m.listenInside(at, echo)))
		want := bytes.Repeat([]byte("0123456789"), 200_000)
		go func() {
			_, _ = c.Write(want)
			_ = c.CloseWrite() // the way back stays open
		}()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d of %d bytes came back, %v", at, len(got), len(want), err)
		}
	}
}

func TestTheEndOfOneWayIsPassedOnAlone(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	got := make(chan string, 1)
	c := client(t, m.publish(n, "tcp", m.listenInside("127.0.0.1:0", func(in *net.TCPConn) {
		_, _ = in.Write([]byte("bye"))
		_ = in.CloseWrite()
		b, _ := io.ReadAll(in)
		got <- string(b)
	})))
	if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := c.Write([]byte("still here")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if b := <-got; b != "still here" {
		t.Errorf("the server inside heard %q after it had ended its way", b)
	}
}

func TestAResetIsPassedOn(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	inside := make(chan error, 1)
	port := m.listenInside("127.0.0.1:0", func(in *net.TCPConn) {
		b := make([]byte, 1)
		if _, _ = in.Read(b); b[0] == 'r' {
			_ = in.SetLinger(0)
			_ = in.Close()
			return
		}
		_, err := in.Read(b)
		inside <- err
	})
	p := m.publish(n, "tcp", port)
	c := client(t, p)
	_, _ = c.Write([]byte("r"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset inside the client sees %v", err)
	}
	c = client(t, p)
	_, _ = c.Write([]byte("x"))
	for p.Connections() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-inside; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the client's reset the server inside sees %v", err)
	}
}

func TestNobodyListensInside(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	none, err := n.Publish("default", sandbox.Port{GuestPort: 80, Protocol: "tcp"}, func() engine.Network { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	for _, p := range []*network.Published{m.publish(n, "tcp", 4321), none} {
		c, err := net.Dial("tcp", at("127.0.0.1", strconv.Itoa(p.Port.HostPort)))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
	}
}

// TestAPortIsNeverConnectedToItself: with one port left to choose from, every connection to it would be.
func TestAPortIsNeverConnectedToItself(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	if err := netns.In(m.ns, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40000"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if c, err := n.Dial(t.Context(), m.inside, "tcp", 40000); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("tcp: %v, %v", c, err)
		}
	}
	c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", m.publish(n, "udp", 40000).Port.HostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if got, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("udp: %d bytes, %v", got, err)
	}
}

func TestAThousandConnectionsAtOnce(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	p := m.publish(n, "tcp", m.listenInside("127.0.0.1:0", echo))
	all := make([]*net.TCPConn, 1000)
	var work sync.WaitGroup
	for part := range 10 {
		work.Go(func() {
			for i := part; i < len(all); i += 10 {
				all[i] = client(t, p)
			}
		})
	}
	work.Wait()
	for round := range 2 {
		for i, c := range all {
			if _, err := fmt.Fprintf(c, "%8d", i); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range all {
			b := make([]byte, 8)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != fmt.Sprintf("%8d", i) {
				t.Fatalf("round %d, connection %d: %q, %v", round, i, b, err)
			}
		}
	}
	if got := p.Connections(); got != 1000 {
		t.Errorf("%d connections are counted", got)
	}
	p.Close()
	for i, c := range all {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatalf("connection %d outlives its port", i)
		}
	}
	if _, err := net.Dial("tcp", at("127.0.0.1", strconv.Itoa(p.Port.HostPort))); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
}

// echoInside answers datagrams with who it is and the sender's port as it sees it.
func (m *machine) echoInside(at, who string) int {
	m.t.Helper()
	var c net.PacketConn
	if err := netns.In(m.ns, func() (err error) { c, err = net.ListenPacket("udp", at); return err }); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 1<<16); ; {
			k, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(fmt.Sprintf("%s %s %s", who, from, b[:k])), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func udpClient(t *testing.T, p *network.Published) *net.UDPConn {
	t.Helper()
	c, err := net.Dial("udp", at("127.0.0.1", strconv.Itoa(p.Port.HostPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// say sends a datagram and gives who answered, as seen by whom.
func say(t *testing.T, c *net.UDPConn, text string) (who, from string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	k, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	var back string
	if _, err := fmt.Sscan(string(b[:k]), &who, &from, &back); err != nil || back != text {
		t.Fatalf("%q came back: %v", b[:k], err)
	}
	return who, from
}

func TestUDPHasASessionAClient(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	p := m.publish(n, "udp", m.echoInside("127.0.0.1:0", "four"))
	a, b := udpClient(t, p), udpClient(t, p)
	_, fromA := say(t, a, "1")
	_, fromB := say(t, b, "2")
	if fromA == fromB {
		t.Error("two clients are one to the server inside")
	}
	if _, again := say(t, a, "3"); again != fromA {
		t.Error("one client is two to the server inside")
	}
	for end := time.Now().Add(10 * time.Second); p.Connections() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d idle sessions do not end", p.Connections())
		}
	}
	if _, later := say(t, a, "4"); later == fromA {
		t.Error("an idle session did not end")
	}
	six := m.publish(n, "udp", m.echoInside("[::1]:0", "six"))
	if who, _ := say(t, udpClient(t, six), "5"); who != "six" {
		t.Errorf("%q answers at ::1", who)
	}
}

func TestASessionInUseGoesOn(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	p := m.publish(n, "udp", m.echoInside("127.0.0.1:0", "four"))
	c := udpClient(t, p)
	_, from := say(t, c, "1")
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // three times its idle time
		if _, now := say(t, c, "2"); now != from {
			t.Fatal("a session in use ended")
		}
	}
}

func TestPortsFollowTheMachine(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	old, young := newMachine(t, n, network.Egress{Mode: network.None}), newMachine(t, n, network.Egress{Mode: network.None})
	port := old.echoInside("127.0.0.1:0", "old")
	young.echoInside("127.0.0.1:"+strconv.Itoa(port), "young")
	var now atomic.Value
	now.Store(old.inside)
	p, err := n.Publish("default", sandbox.Port{GuestPort: port, Protocol: "udp"}, func() engine.Network { return now.Load().(engine.Network) })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := udpClient(t, p)
	if who, _ := say(t, c, "1"); who != "old" {
		t.Fatal(who)
	}
	now.Store(young.inside)
	if who, _ := say(t, c, "2"); who != "young" {
		t.Errorf("the %s machine answers after its end", who)
	}
	p.Reset()
	for end := time.Now().Add(10 * time.Second); p.Connections() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Reset ends no session")
		}
	}
}

func TestHostPorts(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	m := newMachine(t, n, network.Egress{Mode: network.None})
	fixed := func(port int) error {
		p, err := n.Publish(fmt.Sprint("of ", port), sandbox.Port{GuestPort: 80, HostPort: port, Protocol: "tcp"}, func() engine.Network { return m.inside })
		if err == nil {
			t.Cleanup(p.Close)
		}
		return err
	}
	for port, want := range map[int]sandbox.Code{first - 1: sandbox.PortNotAllowed, last + 1: sandbox.PortNotAllowed, 22: sandbox.PortNotAllowed, first + 3: ""} {
		if err := fixed(port); sandbox.CodeOf(err) != want {
			t.Errorf("port %d: %v, want %q", port, err, want)
		}
	}
	if err := fixed(first + 3); sandbox.CodeOf(err) != sandbox.PortInUse {
		t.Errorf("a taken port: %v", err)
	}
	taken, err := net.Listen("tcp", at("127.0.0.1", strconv.Itoa(first+4)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	seen := map[int]bool{first + 3: true, first + 4: true}
	for range last - first - 1 {
		p := m.publish(n, "tcp", 80)
		if port := p.Port.HostPort; port < first || port > last || seen[port] {
			t.Errorf("port %d was chosen", port)
		}
		seen[p.Port.HostPort] = true
	}
	if _, err := n.Publish("default", sandbox.Port{GuestPort: 80, Protocol: "tcp"}, func() engine.Network { return nil }); sandbox.CodeOf(err) != sandbox.Capacity {
		t.Errorf("with all ports taken: %v", err)
	}
	m.publish(n, "udp", 80) // the other protocol's are its own
}

// TestANamespaceHasItsShareOfThePorts: a quarter, of both protocols together, so that others find some.
func TestANamespaceHasItsShareOfThePorts(t *testing.T) {
	n := open(t, ports("127.0.0.1"))
	none := func() engine.Network { return nil }
	opened := map[int]*network.Published{}
	port := func(i int) sandbox.Port {
		return sandbox.Port{GuestPort: i, Protocol: []string{"tcp", "udp"}[i%2]}
	}
	refused := func() {
		t.Helper()
		if _, err := n.Publish("greedy", port(7), none); sandbox.CodeOf(err) != sandbox.QuotaExceeded {
			t.Errorf("beyond its share: %v", err)
		}
	}
	for i := range 3 {
		p, err := n.Publish("greedy", port(i), none)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		opened[i] = p
	}
	refused()
	for i := range 2 { // what fails takes no share
		if _, err := n.Publish("other", sandbox.Port{GuestPort: i, HostPort: 22, Protocol: "tcp"}, none); sandbox.CodeOf(err) != sandbox.PortNotAllowed {
			t.Error(err)
		}
	}
	for i := range 3 {
		p, err := n.Publish("other", port(i), none)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
	}
	opened[0].Close()
	opened[0].Close()
	p, err := n.Publish("greedy", port(0), none)
	if err != nil {
		t.Fatalf("after it gave one back: %v", err)
	}
	defer p.Close()
	refused()
	again, err := n.Republish("greedy", port(8), none) // a restart takes nobody's ports away
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	refused()
}

func TestPortsAreNotReachedFromSandboxes(t *testing.T) {
	n := open(t, ports("0.0.0.0"))
	m, other := newMachine(t, n, network.Egress{Mode: network.Public}), newMachine(t, n, network.Egress{Mode: network.Allow, Allow: []string{"0.0.0.0/0"}})
	p := m.publish(n, "tcp", m.listenInside("127.0.0.1:0", echo))
	if c, err := net.Dial("tcp", at(hostOwn, strconv.Itoa(p.Port.HostPort))); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	for _, from := range []*machine{m, other} {
		for _, a := range []string{hostOwn, "127.0.0.1", "0.0.0.0", network.Resolver().String(), everyone} {
			if c, err := from.dial("tcp", at(a, strconv.Itoa(p.Port.HostPort))); err == nil {
				c.Close()
				t.Errorf("a sandbox reaches a published port by %s", a)
			}
		}
	}
}

// BenchmarkPort is what one connection to a published port carries.
func BenchmarkPort(b *testing.B) {
	n := open(b, ports("127.0.0.1"))
	m := newMachine(b, n, network.Egress{Mode: network.None})
	chunk := make([]byte, 1<<20)
	p := m.publish(n, "tcp", m.listenInside("127.0.0.1:0", func(c *net.TCPConn) {
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}))
	c := client(b, p)
	buf := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	b.ResetTimer()
	for range b.N {
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}
