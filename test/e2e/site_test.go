package e2e_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/network/networktest"
)

// site is a network namespace in which a server runs, joined to an internet of the test's own.
type site struct {
	*networktest.Internet
	ns      *os.File
	sockets netns.Sockets
	resolv  string
	hide    string // a folder of the host that the server finds empty
}

// newSite starts a server there.
func newSite(t *testing.T, hide string, flags ...string) (*site, *server) {
	t.Helper()
	onThisHost(t)
	at := &site{hide: hide}
	var err error
	if at.ns, err = networktest.NewNamespace(); err != nil {
		t.Fatal(err)
	}
	if at.Internet, err = networktest.Make(at.ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.sockets.Close(); at.ns.Close(); at.Namespace.Close() })
	dir, err := os.MkdirTemp(work, "data-")
	if err != nil {
		t.Fatal(err)
	}
	at.resolv = filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(at.resolv, []byte("nameserver "+networktest.Names+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := linkImages(filepath.Join(dir, "images")); err != nil {
		t.Fatal(err)
	}
	s := &server{dir: dir, flags: flags, at: at}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	s.endWith(t)
	return at, s
}

// command runs a program with the site's name server, in mounts of its own.
func (at *site) command(program string, args ...string) *exec.Cmd {
	if at == nil {
		return exec.Command(program, args...)
	}
	script := `mount --bind "$1" /etc/resolv.conf && { [ -z "$2" ] || mount -t tmpfs none "$2"; } && shift 2 && exec "$@"`
	return exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", script, "sh", at.resolv, at.hide, program}, args...)...)
}

func (at *site) start(cmd *exec.Cmd) error {
	if at == nil {
		return cmd.Start()
	}
	return netns.In(at.ns, cmd.Start)
}

func (at *site) client() *http.Client {
	if at == nil {
		return http.DefaultClient
	}
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return at.sockets.Dial(ctx, at.ns, "tcp", to)
	}}}
}

// dial connects from the server's host.
func (at *site) dial(protocol, address string, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := at.sockets.Dial(ctx, at.ns, protocol, netip.MustParseAddrPort(net.JoinHostPort(address, strconv.Itoa(port))))
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// get asks a published port by HTTP.
func (at *site) get(port int, path string) (*http.Response, error) {
	c := at.client()
	c.Timeout = 20 * time.Second
	return c.Get("http://127.0.0.1:" + strconv.Itoa(port) + path)
}
