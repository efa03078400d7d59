package network_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/internal/network/inside"
	"outpost.run/outpost/internal/network/networktest"
)

// The tests run in a network namespace of their own, which is the host's here.
const (
	inWorld  = "OUTPOST_NETWORK_TEST"
	hostOwn  = networktest.Host
	host6    = networktest.Host6
	everyone = networktest.Broadcast // the broadcast address of the host's network
)

var (
	kernel = host.New()
	world  *networktest.Internet
	resolv string
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test skips
	}
	if os.Getenv(inWorld) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inWorld+"=1")
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
	code := m.Run()
	_ = os.RemoveAll(filepath.Dir(resolv))
	os.Exit(code)
}

func makeWorld() error {
	own, err := netns.Own()
	if err != nil {
		return err
	}
	if world, err = networktest.Make(own); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "outpost-network-")
	if err != nil {
		return err
	}
	resolv = filepath.Join(dir, "resolv.conf")
	return os.WriteFile(resolv, []byte("# a comment\nsearch corp.example\nnameserver "+networktest.Names+"\n"), 0o600)
}

// machine is a network namespace with a link, as a sandbox's machine has it.
type machine struct {
	t       testing.TB
	ns      *os.File
	inside  engine.Network
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
	o.Log, o.ResolvConf, o.Interface = slog.New(slog.DiscardHandler), resolv, "egress0"
	n, err := network.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func newMachine(t testing.TB, n *network.Network, e network.Egress) *machine {
	t.Helper()
	ns, err := networktest.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, ns: ns, sockets: &netns.Sockets{}}
	m.inside = inside.New(kernel, m.sockets, ns)
	if m.link, err = n.Connect(t.Context(), m.inside, e); err != nil {
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
		_ = c.SetDeadline(time.Now().Add(time.Minute))
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
	size := 0
	for try := 0; ; try++ { // a lost datagram is sent again, as programs do
		if _, err := c.Write(b); err != nil {
			return answer, err
		}
		if kind == "udp" {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
		}
		if size, err = c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || try == 10 {
			break
		}
	}
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
