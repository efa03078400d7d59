// Package networktest is an internet for tests: a network namespace in which one server has every address there is. Whatever
// the namespace that it is joined to can reach, it reaches.
package networktest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host/netns"
)

// The addresses of the link between the host and the internet, which are no others' in it.
const (
	Host      = "93.184.216.2" // the host's own
	Host6     = "2600:9000::2"
	Router    = "93.184.216.1"
	Router6   = "2600:9000::1"
	Broadcast = "93.184.216.3"
	Names     = "93.184.216.53" // the name server
)

// Internet is one that runs. It answers HTTP at ports 80 and 81 and HTTPS at 443 with the host that was asked for and the
// address it was reached at, echoes tcp at port 7, breaks off at port 9 and floods at port 19 of every address, echoes udp at those of EchoUDP, and has a name server.
type Internet struct {
	Namespace *os.File
	cert      tls.Certificate

	mu      sync.Mutex
	zone    map[string][]string // addresses by name
	asked   []string
	answers map[string]func() []string // instead of zone
}

// EchoUDP are the addresses that echo datagrams.
var EchoUDP = []string{"93.184.216.34:7", "10.9.0.5:7", "[2600:9000:1::34]:7"}

// Zone sets what the name server knows, and forgets what it was asked.
func (w *Internet) Zone(names map[string][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone, w.answers, w.asked = names, map[string]func() []string{}, nil
}

// Answer lets one name resolve to something else from now on.
func (w *Internet) Answer(name string, addresses ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[name] = func() []string { return addresses }
}

// Asked are the names that the name server was asked for.
func (w *Internet) Asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked)
}

// Make makes an internet and joins it to the network namespace host.
func Make(host *os.File) (w *Internet, err error) {
	w = &Internet{answers: map[string]func() []string{}}
	if w.Namespace, err = NewNamespace(); err != nil {
		return nil, err
	}
	if w.cert, err = certificate(); err != nil {
		return nil, err
	}
	if err := netns.In(host, w.join); err != nil {
		return nil, err
	}
	return w, netns.In(w.Namespace, w.settle)
}

func (w *Internet) join() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := up("lo"); err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "in0", PeerNamespace: netlink.NsFd(int(w.Namespace.Fd()))}
	if err := h.LinkAdd(veth); err != nil {
		return err
	}
	if err := AddAddresses("out0", Host+"/30", Host6+"/64"); err != nil {
		return err
	}
	for _, gw := range []string{Router, Router6} {
		if err := h.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}); err != nil {
			return err
		}
	}
	return nil
}

// settle furnishes the internet: every address is one of its own, but those of the link to the host.
func (w *Internet) settle() error {
	if err := AddAddresses("in0", Router+"/30", Router6+"/64"); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, dst, _ := net.ParseCIDR(all)
		if err := h.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_MAIN, Scope: unix.RT_SCOPE_HOST}); err != nil {
			return err
		}
	}
	hello := http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		at, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		fmt.Fprintf(a, "%s at %s", r.Host, at)
	})
	for _, port := range []string{":80", ":81", ":443"} {
		l, err := net.Listen("tcp", port)
		if err != nil {
			return err
		}
		if port == ":443" {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{w.cert}})
		}
		quiet := &http.Server{Handler: hello, ErrorLog: log.New(io.Discard, "", 0)} //nolint:gosec // the tests' own
		go quiet.Serve(l)                                                           //nolint:errcheck // it ends with the test
	}
	for port, speak := range map[string]func(*net.TCPConn){":7": echo, ":9": breakOff, ":19": flood} {
		l, err := net.Listen("tcp", port)
		if err != nil {
			return err
		}
		go serve(l, speak)
	}
	return w.settleDatagrams()
}

func serve(l net.Listener, speak func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			speak(c.(*net.TCPConn))
			_ = c.Close()
		}()
	}
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func breakOff(c *net.TCPConn) {
	_, _ = c.Read(make([]byte, 1))
	_ = c.SetLinger(0)
}

func flood(c *net.TCPConn) {
	for b := make([]byte, 64<<10); ; {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// anyAddress binds to addresses that a route alone makes local.
var anyAddress = net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) (err error) {
	_ = c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		if strings.HasSuffix(network, "6") {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		}
	})
	return err
}}

func (w *Internet) settleDatagrams() error {
	for _, at := range EchoUDP {
		c, err := anyAddress.ListenPacket(context.Background(), "udp", at)
		if err != nil {
			return err
		}
		go func() {
			for buf := make([]byte, 1<<16); ; {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(buf[:n], from)
			}
		}()
	}
	names, err := anyAddress.ListenPacket(context.Background(), "udp", Names+":53")
	if err != nil {
		return err
	}
	go func() {
		for buf := make([]byte, 1<<16); ; {
			n, from, err := names.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = names.WriteTo(w.nameServer(buf[:n], 512), from)
		}
	}()
	streams, err := anyAddress.Listen(context.Background(), "tcp", Names+":53")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := streams.Accept()
			if err != nil {
				return
			}
			size := make([]byte, 2)
			_, _ = io.ReadFull(c, size)
			b := make([]byte, int(size[0])<<8|int(size[1]))
			_, _ = io.ReadFull(c, b)
			answer := w.nameServer(b, 1<<16)
			_, _ = c.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
			_ = c.Close()
		}
	}()
	return nil
}

// nameServer answers from the zone, in at most room bytes.
func (w *Internet) nameServer(b []byte, room int) []byte {
	var m dnsmessage.Message
	if m.Unpack(b) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	w.mu.Lock()
	w.asked = append(w.asked, name)
	addresses := w.zone[name]
	if f := w.answers[name]; f != nil {
		addresses = f()
	}
	w.mu.Unlock()
	m.Response, m.Additionals = true, nil
	if addresses == nil {
		m.RCode = dnsmessage.RCodeNameError
	}
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5}
	for _, text := range addresses {
		a := netip.MustParseAddr(text)
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	out, _ := m.Pack()
	if len(out) > room {
		m.Truncated, m.Answers = true, nil
		out, _ = m.Pack()
	}
	return out
}

// NewNamespace makes a network namespace with nothing but its loopback.
func NewNamespace() (ns *os.File, err error) {
	own, err := netns.Own()
	if err != nil {
		return nil, err
	}
	defer own.Close()
	err = netns.In(own, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if ns, err = netns.Own(); err != nil {
			return err
		}
		return up("lo")
	})
	return ns, err
}

func up(name string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(l)
}

// AddAddresses gives a link of the calling thread's network namespace addresses.
func AddAddresses(name string, cidrs ...string) error {
	return addresses(name, cidrs, func(h *netlink.Handle, l netlink.Link, a *netlink.Addr) error {
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		return h.AddrAdd(l, a)
	})
}

// DropAddresses takes them away again.
func DropAddresses(name string, cidrs ...string) error {
	return addresses(name, cidrs, func(h *netlink.Handle, l netlink.Link, a *netlink.Addr) error { return h.AddrDel(l, a) })
}

func addresses(name string, cidrs []string, f func(*netlink.Handle, netlink.Link, *netlink.Addr) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, c := range cidrs {
		a, err := netlink.ParseAddr(c)
		if err != nil {
			return err
		}
		if err := f(h, l, a); err != nil {
			return err
		}
	}
	return h.LinkSetUp(l)
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
