package network_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/network"
)

// The tests run in a network namespace of their own, which is the host's here. Its default route leads to another one,
// the internet, where one server has every address there is: whatever the host can reach, it reaches.
const (
	inside   = "OUTPOST_NETWORK_TEST"
	hostOwn  = "93.184.216.2"
	host6    = "2600:9000::2"
	router   = "93.184.216.1"
	everyone = "93.184.216.3" // the broadcast address of the host's network
	router6  = "2600:9000::1"
	nameAddr = "93.184.216.53"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test skips
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := makeWorld(); err != nil {
		fmt.Fprintln(os.Stderr, "the tests' internet:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var world struct {
	internet *os.File
	resolv   string
	cert     tls.Certificate

	mu      sync.Mutex
	zone    map[string][]string // addresses by name
	asked   []string
	answers map[string]func() []string // instead of zone
}

func makeWorld() (err error) {
	if world.internet, err = newNamespace(); err != nil {
		return err
	}
	if err := up("lo"); err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "in0", PeerNamespace: netlink.NsFd(int(world.internet.Fd()))}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := join("out0", hostOwn+"/30", host6+"/64"); err != nil {
		return err
	}
	for _, gw := range []string{router, router6} {
		if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}); err != nil {
			return err
		}
	}
	if world.cert, err = certificate(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "outpost-network-")
	if err != nil {
		return err
	}
	world.resolv = filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(world.resolv, []byte("# a comment\nsearch corp.example\nnameserver "+nameAddr+"\n"), 0o600); err != nil {
		return err
	}
	return netns.In(world.internet, settle)
}

// settle furnishes the internet: every address is one of its own, but those of the link to the host.
func settle() error {
	if err := join("in0", router+"/30", router6+"/64"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, dst, _ := net.ParseCIDR(all)
		if err := netlink.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_MAIN, Scope: unix.RT_SCOPE_HOST}); err != nil {
			return err
		}
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		fmt.Fprintf(w, "%s at %s", r.Host, at)
	})
	for _, port := range []string{":80", ":81", ":443"} {
		l, err := net.Listen("tcp", port)
		if err != nil {
			return err
		}
		if port == ":443" {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{world.cert}})
		}
		go http.Serve(l, hello) //nolint:errcheck,gosec // it ends with the test
	}
	echo, err := net.Listen("tcp", ":7")
	if err != nil {
		return err
	}
	go serveEcho(echo)
	return settleDatagrams()
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.Close()
		}()
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

func settleDatagrams() error {
	for _, at := range []string{"93.184.216.34:7", "10.9.0.5:7", "[2600:9000:1::34]:7"} {
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
	names, err := anyAddress.ListenPacket(context.Background(), "udp", nameAddr+":53")
	if err != nil {
		return err
	}
	go func() {
		for buf := make([]byte, 1<<16); ; {
			n, from, err := names.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = names.WriteTo(nameServer(buf[:n], 512), from)
		}
	}()
	streams, err := anyAddress.Listen(context.Background(), "tcp", nameAddr+":53")
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
			answer := nameServer(b, 1<<16)
			_, _ = c.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
			_ = c.Close()
		}
	}()
	return nil
}

// nameServer answers from the zone, in at most room bytes.
func nameServer(b []byte, room int) []byte {
	var m dnsmessage.Message
	if m.Unpack(b) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	world.mu.Lock()
	world.asked = append(world.asked, name)
	addresses := world.zone[name]
	if f := world.answers[name]; f != nil {
		addresses = f()
	}
	world.mu.Unlock()
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

func newNamespace() (ns *os.File, err error) {
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

func join(name string, cidrs ...string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range cidrs {
		address, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if strings.Contains(a, ":") {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, address); err != nil {
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

// machine is a network namespace with a link, as a sandbox's machine has it.
type machine struct {
	t       testing.TB
	ns      *os.File
	link    *network.Link
	sockets *netns.Sockets
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
}

func open(t testing.TB, o network.Options) *network.Network {
	t.Helper()
	needRoot(t)
	o.Kernel, o.Log, o.ResolvConf, o.Interface = host.New(), slog.New(slog.DiscardHandler), world.resolv, "egress0"
	n, err := network.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func newMachine(t testing.TB, n *network.Network, e network.Egress) *machine {
	t.Helper()
	ns, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, ns: ns, sockets: &netns.Sockets{}}
	if m.link, err = n.Connect(t.Context(), ns, e); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.link.Close(); m.sockets.Close(); ns.Close() })
	return m
}

func (m *machine) dial(kind, to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	c, err := m.sockets.Dial(ctx, m.ns, kind, netip.MustParseAddrPort(to))
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return c, err
}

// get asks by HTTP, or by HTTPS for port 443, with that name.
func (m *machine) get(at, name string) (string, error) {
	transport := &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return m.dial("tcp", at) },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the tests' own server
	}
	defer transport.CloseIdleConnections()
	scheme := "http://"
	if strings.HasSuffix(at, ":443") {
		scheme = "https://"
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get(scheme + name + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// lookUp asks the link's DNS as a program would.
func (m *machine) lookUp(kind, name string, what dnsmessage.Type) (dnsmessage.Message, error) {
	m.t.Helper()
	var answer dnsmessage.Message
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		m.t.Fatal(err)
	}
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: n, Type: what, Class: dnsmessage.ClassINET}}}
	b, err := q.Pack()
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := m.dial(kind, network.Resolver().String()+":53")
	if err != nil {
		return answer, err
	}
	defer c.Close()
	buf := make([]byte, 1<<16)
	if kind == "tcp" {
		b = append([]byte{0, byte(len(b))}, b...)
	}
	if _, err := c.Write(b); err != nil {
		return answer, err
	}
	size, err := c.Read(buf)
	if err != nil {
		return answer, err
	}
	if kind == "tcp" {
		for size < 2 || size < 2+int(buf[0])<<8+int(buf[1]) {
			more, err := c.Read(buf[size:])
			if err != nil {
				return answer, err
			}
			size += more
		}
		buf, size = buf[2:], size-2
	}
	return answer, answer.Unpack(buf[:size])
}

// addresses are what a name resolves to inside.
func (m *machine) addresses(name string) (all []string) {
	m.t.Helper()
	for _, what := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		answer, err := m.lookUp("udp", name, what)
		if err != nil {
			m.t.Fatalf("look %s up: %v", name, err)
		}
		for _, r := range answer.Answers {
			switch body := r.Body.(type) {
			case *dnsmessage.AResource:
				all = append(all, netip.AddrFrom4(body.A).String())
			case *dnsmessage.AAAAResource:
				all = append(all, netip.AddrFrom16(body.AAAA).String())
			}
		}
	}
	return all
}

func setZone(names map[string][]string) {
	world.mu.Lock()
	defer world.mu.Unlock()
	world.zone, world.answers, world.asked = names, nil, nil
}
