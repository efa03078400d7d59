package network_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"outpost.run/outpost/internal/network"
)

func TestAMachineHasSoManyConnectionsAndNoMore(t *testing.T) {
	n := open(t, network.Options{Idle: 300 * time.Millisecond})
	m, other := newMachine(t, n, network.Egress{Mode: network.Public}), newMachine(t, n, network.Egress{Mode: network.Public})
	const most = 1024
	all := make([]net.Conn, 0, most)
	for range most {
		c, err := m.dial("tcp", "93.184.216.34:7")
		if err != nil {
			t.Fatalf("connection %d: %v", len(all), err)
		}
		all = append(all, c)
	}
	if c, err := m.dial("tcp", "93.184.216.34:7"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("one over the most: %v, %v", c, err)
	}
	if answersUDP(m, "93.184.216.34:7") {
		t.Error("a session over the most")
	}
	if _, err := other.get("93.184.216.34:80", "x.example"); err != nil {
		t.Errorf("another machine: %v", err)
	}
	for i, c := range all {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("connection %d of many: %v", i, err)
		}
	}
	for _, c := range all {
		c.Close()
	}
	idle(t, m)
	if _, err := m.get("93.184.216.34:80", "x.example"); err != nil {
		t.Errorf("after all were closed: %v", err)
	}
}

// idle waits until the machine has no connection left.
func idle(t *testing.T, m *machine) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); m.link.Connections() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections do not end", m.link.Connections())
		}
	}
}

func TestIdleSessionsEnd(t *testing.T) {
	m := newMachine(t, open(t, network.Options{Idle: 200 * time.Millisecond}), network.Egress{Mode: network.Public})
	if !answersUDP(m, "93.184.216.34:7") {
		t.Fatal("no echo")
	}
	if m.link.Connections() != 1 {
		t.Errorf("%d sessions", m.link.Connections())
	}
	idle(t, m)
}

func TestWhatNobodyReadsIsBounded(t *testing.T) {
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.Public})
	before := heap()
	for range 300 {
		c, err := m.dial("tcp", "93.184.216.34:19") // never read
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var most int64
	for range 20 { // the flood goes on until all buffers are full
		time.Sleep(100 * time.Millisecond)
		most = max(most, heap()-before)
	}
	t.Logf("%d MB for 300 connections that nobody reads", most>>20)
	if most > 100<<20 {
		t.Errorf("%d MB are held for one machine", most>>20)
	}
}

func TestAFloodOfQuestionsHoldsUpNobody(t *testing.T) {
	world.Zone(map[string][]string{"a.example": {"93.184.216.34"}})
	n := open(t, network.Options{})
	m, other := newMachine(t, n, network.Egress{Mode: network.Public}), newMachine(t, n, network.Egress{Mode: network.Public})
	name, _ := dnsmessage.NewName("a.example.")
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	b, _ := q.Pack()
	var flood sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		flood.Go(func() {
			c, err := m.dial("udp", network.Resolver().String()+":53")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = c.Write(b)
				}
			}
		})
	}
	for range 5 {
		if got := other.addresses("a.example"); len(got) != 1 {
			t.Errorf("meanwhile another machine hears %v", got)
		}
	}
	close(stop)
	flood.Wait()
	for _, junk := range [][]byte{nil, {0}, b[:11], b[:len(b)-1], append(bytes.Clone(b[:4]), 0xff, 0xff, 0, 0, 0, 0, 0, 0), bytes.Repeat([]byte{0xc0}, 4000)} {
		c, err := m.dial("udp", network.Resolver().String()+":53")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(junk)
		c.Close()
	}
	if got := m.addresses("a.example"); len(got) != 1 {
		t.Errorf("after it the machine itself hears %v", got)
	}
}

func TestEndsOfEgressConnections(t *testing.T) {
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.Public})
	c, err := m.dial("tcp", "93.184.216.34:7")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("x"), 3<<20)
	go func() {
		_, _ = c.Write(want)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || len(got) != len(want) {
		t.Errorf("after the end of the way out %d of %d bytes come back, %v", len(got), len(want), err)
	}
	c.Close()
	if c, err = m.dial("tcp", "93.184.216.34:9"); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a reset by the server is seen as %v", err)
	}
	c.Close()
	idle(t, m)
}

// slices hands what is written on in small pieces, as a program that hides something would.
type slivers struct {
	net.Conn
	size int
}

func (s slivers) Write(b []byte) (int, error) {
	for at := 0; at < len(b); at += s.size {
		if _, err := s.Conn.Write(b[at:min(at+s.size, len(b))]); err != nil {
			return at, err
		}
	}
	return len(b), nil
}

// warned says a warning before its handshake, which lenient servers pass over.
type warned struct {
	net.Conn
	said bool
}

func (w *warned) Write(b []byte) (int, error) {
	if !w.said {
		w.said = true
		if _, err := w.Conn.Write([]byte{0x15, 3, 1, 0, 2, 1, 90}); err != nil {
			return 0, err
		}
	}
	return w.Conn.Write(b)
}

// records cuts a TLS handshake into records of a few bytes.
type records struct{ net.Conn }

func (r records) Write(b []byte) (int, error) {
	if len(b) < 5 || b[0] != 0x16 {
		return r.Conn.Write(b)
	}
	for rest := b[5:]; len(rest) > 0; {
		n := min(len(rest), 40)
		if _, err := r.Conn.Write(append([]byte{0x16, b[1], b[2], 0, byte(n)}, rest[:n]...)); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

func TestAHiddenServerNameIsSeen(t *testing.T) {
	world.Zone(map[string][]string{"ok.example": {"93.184.216.34"}})
	m := newMachine(t, open(t, network.Options{}), allow("ok.example"))
	m.addresses("ok.example")
	hand := func(wrap func(net.Conn) net.Conn, name string) error {
		c, err := m.dial("tcp", "93.184.216.34:443")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return tls.Client(wrap(c), &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() //nolint:gosec // the tests' own server
	}
	for way, wrap := range map[string]func(net.Conn) net.Conn{
		"whole": func(c net.Conn) net.Conn { return c }, "in slivers": func(c net.Conn) net.Conn { return slivers{c, 3} }, "in records": func(c net.Conn) net.Conn { return records{c} }, "after a warning": func(c net.Conn) net.Conn { return &warned{Conn: c} },
	} {
		if err := hand(wrap, "ok.example"); err != nil && way != "after a warning" { // which this server does not like
			t.Errorf("%s: an allowed name: %v", way, err)
		}
		for _, name := range []string{"evil.example", "evil.ok.example", "ok.example.evil.example", "", "93.184.216.34", strings.Repeat("a.", 100) + "example"} {
			if hand(wrap, name) == nil {
				t.Errorf("%s: name %q passes", way, name)
			}
		}
	}
}

func TestALinkOfAMachineThatEndedGoesWithIt(t *testing.T) {
	n := open(t, network.Options{})
	m := newMachine(t, n, network.Egress{Mode: network.Public})
	c, err := m.dial("tcp", "93.184.216.34:7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	goroutines := runtime.NumGoroutine()
	m.link.End()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := m.sockets.Dial(ctx, m.ns, "tcp", netip.MustParseAddrPort("93.184.216.34:7")); err == nil {
		t.Error("a machine that ends reaches the world")
	}
	if now := runtime.NumGoroutine(); now >= goroutines {
		t.Errorf("%d goroutines before the end of the link, %d after", goroutines, now)
	}
}
