package e2e_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"outpost.run/outpost/internal/network/networktest"
	"outpost.run/outpost/sandbox"
)

// servers starts what listens inside and returns when all do: HTTP on the loopback, an echo of datagrams, and a server
// that answers with all it heard once the client has ended its way.
const servers = `
import subprocess, sys, socket, time
code = '''
import http.server, socket, threading
def datagrams():
	s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 5353))
	while 1:
		b, a = s.recvfrom(65536); s.sendto(b"echo " + b, a)
def half():
	l = socket.create_server(("127.0.0.1", 7000), backlog=1024)
	def one(c):
		heard = b""
		while (b := c.recv(65536)): heard += b
		c.sendall(b"heard " + str(len(heard)).encode()); c.close()
	while 1: threading.Thread(target=one, args=(l.accept()[0],), daemon=True).start()
for f in datagrams, half: threading.Thread(target=f, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
'''
open("hello", "w").write("from inside")
subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
for port in 8000, 7000:
	while True:
		try: socket.create_connection(("127.0.0.1", port)).close(); break
		except OSError: time.sleep(.01)
`

func port(guest int, protocol string, host int) sandbox.PortRequest {
	return sandbox.PortRequest{GuestPort: &guest, HostPort: &host, Protocol: &protocol}
}

func hostPort(t *testing.T, ports []sandbox.Port, guest int) int {
	t.Helper()
	i := slices.IndexFunc(ports, func(p sandbox.Port) bool { return p.GuestPort == guest })
	if i < 0 || ports[i].HostPort < 31000 || ports[i].HostPort > 31999 {
		t.Fatalf("port %d in %+v", guest, ports)
	}
	return ports[i].HostPort
}

// answers checks what the servers inside say at their published ports.
func answers(t *testing.T, at *site, ports []sandbox.Port) {
	t.Helper()
	r, err := at.get(hostPort(t, ports, 8000), "/hello")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); string(b) != "from inside" {
		t.Errorf("GET /hello: %q, %v", b, err)
	}
	u, err := at.dial("udp", "127.0.0.1", hostPort(t, ports, 5353))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_, _ = u.Write([]byte("x"))
	b := make([]byte, 100)
	if n, err := u.Read(b); string(b[:n]) != "echo x" {
		t.Errorf("datagram: %q, %v", b[:n], err)
	}
	c, err := at.dial("tcp", "127.0.0.1", hostPort(t, ports, 7000))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(make([]byte, 1_000_000))
	_ = c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "heard 1000000" {
		t.Errorf("half-close: %q, %v", b, err)
	}
}

// refusedAt wants nobody to listen at a port of the host.
func refusedAt(t *testing.T, at *site, ports []sandbox.Port) {
	t.Helper()
	for _, p := range ports {
		if p.Protocol != "tcp" {
			continue
		}
		if c, err := at.dial("tcp", "127.0.0.1", p.HostPort); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("host port %d is open: %v, %v", p.HostPort, c, err)
		}
	}
}

func TestPortsOfAStatefulSandboxOverItsWholeLife(t *testing.T) {
	at, s := newSite(t, "")
	ctx := t.Context()
	made, err := s.Create(ctx, sandbox.CreateRequest{
		Language: new("python"), Mode: new("stateful"), Network: egress("none"),
		Ports: []sandbox.PortRequest{port(8000, "tcp", 0), port(5353, "udp", 0), port(7000, "tcp", 31777)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if hostPort(t, made.Ports, 7000) != 31777 {
		t.Errorf("a fixed port: %+v", made.Ports)
	}
	clean(t, s.python(t, made.ID, servers))
	answers(t, at, made.Ports)
	for name, end := range map[string]func() error{"kill -9": s.kill, "a restart": s.terminate} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		answers(t, at, made.Ports)
	}
	if got, err := s.Get(ctx, made.ID); err != nil || !slices.Equal(got.Ports, made.Ports) {
		t.Errorf("after all: %+v, %v", got.Ports, err)
	}
	if _, err := s.Stop(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := at.get(hostPort(t, made.Ports, 8000), "/"); err == nil {
		t.Error("a stopped sandbox answers")
	}
	if _, err := s.Start(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	clean(t, s.python(t, made.ID, servers))
	answers(t, at, made.Ports)
	if err := s.Delete(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	refusedAt(t, at, made.Ports)
}

func TestPortsAreOpenedAndClosedLater(t *testing.T) {
	at, s := newSite(t, "")
	ctx := t.Context()
	made, err := s.Create(ctx, sandbox.CreateRequest{Language: new("python"), Mode: new("stateful")})
	if err != nil {
		t.Fatal(err)
	}
	clean(t, s.python(t, made.ID, servers))
	var ports []sandbox.Port
	for _, r := range []sandbox.PortRequest{port(8000, "tcp", 0), port(5353, "udp", 0), port(7000, "tcp", 31778)} {
		p, err := s.OpenPort(ctx, made.ID, r)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, p)
	}
	answers(t, at, ports)
	for code, r := range map[sandbox.Code]sandbox.PortRequest{
		sandbox.Conflict: port(8000, "tcp", 0), sandbox.PortInUse: port(9, "tcp", 31778), sandbox.PortNotAllowed: port(9, "tcp", 22), sandbox.Invalid: {},
	} {
		if _, err := s.OpenPort(ctx, made.ID, r); sandbox.CodeOf(err) != code {
			t.Errorf("%+v: %v, want %s", r, err, code)
		}
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	answers(t, at, ports)
	held, err := at.dial("tcp", "127.0.0.1", hostPort(t, ports, 7000))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, p := range ports {
		if err := s.ClosePort(ctx, made.ID, p.GuestPort, p.Protocol); err != nil {
			t.Error(err)
		}
		if err := s.ClosePort(ctx, made.ID, p.GuestPort, p.Protocol); sandbox.CodeOf(err) != sandbox.NotFound {
			t.Errorf("closed twice: %v", err)
		}
	}
	if _, err := held.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection outlives its port: %v", err)
	}
	refusedAt(t, at, ports)
	if got, err := s.Get(ctx, made.ID); err != nil || len(got.Ports) > 0 {
		t.Errorf("after closing: %+v, %v", got.Ports, err)
	}
	brief, err := s.Create(ctx, sandbox.CreateRequest{Language: new("python")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenPort(ctx, brief.ID, port(8000, "tcp", 0)); sandbox.CodeOf(err) != sandbox.NotStateful {
		t.Errorf("a port of an ephemeral sandbox: %v", err)
	}
	if err := s.ClosePort(ctx, brief.ID, 8000, "tcp"); sandbox.CodeOf(err) != sandbox.NotStateful {
		t.Errorf("closing a port of an ephemeral sandbox: %v", err)
	}
}

func TestRefusedPortsLeaveNothing(t *testing.T) {
	at, s := newSite(t, "")
	for code, host := range map[sandbox.Code]int{sandbox.PortNotAllowed: 80, sandbox.PortInUse: 31500} {
		taken, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Ports: []sandbox.PortRequest{port(1, "tcp", 31500)}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Ports: []sandbox.PortRequest{port(80, "tcp", 31501), port(81, "tcp", host)}})
		e, _ := errors.AsType[*sandbox.Error](err)
		if e == nil || e.Code != code || len(e.Details) != 1 || e.Details[0].Field != "ports[1].host_port" {
			t.Errorf("host port %d: %v", host, err)
		}
		if err := s.Delete(t.Context(), taken.ID); err != nil {
			t.Error(err)
		}
	}
	refusedAt(t, at, []sandbox.Port{{HostPort: 31500, Protocol: "tcp"}, {HostPort: 31501, Protocol: "tcp"}})
}

func TestANamespaceHasAQuarterOfThePorts(t *testing.T) {
	_, s := newSite(t, "", "--ports-range", "31000-31007")
	ask := func(n int) (sandbox.Sandbox, error) {
		r := sandbox.CreateRequest{Language: new("python")}
		for i := range n {
			r.Ports = append(r.Ports, port(i+1, "tcp", 0))
		}
		return s.Create(t.Context(), r)
	}
	one, err := ask(1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a refusal keeps no share
		if _, err := ask(2); sandbox.CodeOf(err) != sandbox.QuotaExceeded || !strings.Contains(err.Error(), "ports.range") {
			t.Errorf("a third port of eight: %v", err)
		}
	}
	if err := s.Delete(t.Context(), one.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(2); err != nil {
		t.Errorf("after one went: %v", err)
	}
}

func TestPortsOfAnEphemeralSandboxAnswerDuringItsExecs(t *testing.T) {
	at, s := newSite(t, "")
	made, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Ports: []sandbox.PortRequest{port(8000, "tcp", 0)}})
	if err != nil {
		t.Fatal(err)
	}
	host := hostPort(t, made.Ports, 8000)
	closedAtOnce := func(when string) {
		t.Helper()
		c, err := at.dial("tcp", "127.0.0.1", host)
		if err == nil {
			defer c.Close()
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) { // and not refused: the port is open
			t.Errorf("%s: %v", when, err)
		}
	}
	closedAtOnce("before the first exec")
	serve := `
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
	def do_GET(self):
		self.send_response(200); self.end_headers(); self.wfile.write(sys.argv[1].encode())
	def log_message(self, *a): pass
s = http.server.HTTPServer(("127.0.0.1", 8000), H)
s.handle_request()
`
	var runs sync.WaitGroup
	for i := range 3 { // one at a time: each is there for one request
		runs.Go(func() {
			if r, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &serve, Args: []string{strconv.Itoa(i)}}); err != nil || r.ExitCode != 0 {
				t.Errorf("exec %d: %+v, %v", i, r, err)
			}
		})
	}
	seen := map[string]bool{}
	for end := time.Now().Add(30 * time.Second); len(seen) < 3 && time.Now().Before(end); {
		r, err := at.get(host, "/")
		if err != nil { // between two of them, or the next one does not listen yet
			time.Sleep(5 * time.Millisecond)
			continue
		}
		b, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if r.StatusCode == http.StatusOK && len(b) > 0 {
			seen[string(b)] = true
		}
	}
	runs.Wait()
	if len(seen) != 3 {
		t.Errorf("answers came of execs %v", seen)
	}
	closedAtOnce("after the last exec")
	if err := s.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	refusedAt(t, at, made.Ports)
}

func TestNoSandboxReachesAnothersPort(t *testing.T) {
	_, s := newSite(t, "", "--ports-bind", "0.0.0.0")
	made, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Mode: new("stateful"), Ports: []sandbox.PortRequest{port(8000, "tcp", 0), port(5353, "udp", 0)}})
	if err != nil {
		t.Fatal(err)
	}
	clean(t, s.python(t, made.ID, servers))
	var asks []string
	for _, address := range []string{networktest.Host, networktest.Host6, "127.0.0.1", "0.0.0.0", "::1", "10.0.0.1", "10.0.0.2", networktest.Broadcast} {
		for _, p := range made.Ports {
			asks = append(asks, p.Protocol+" "+address+" "+strconv.Itoa(p.HostPort), p.Protocol+" "+address+" "+strconv.Itoa(p.GuestPort))
		}
	}
	code := look
	for _, n := range []*sandbox.NetworkRequest{nil, egress("allow", "0.0.0.0/0", "::/0")} {
		r, err := s.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("python"), Code: &code, Args: asks, Network: n, TimeoutSecs: new(120)})
		if err != nil {
			t.Fatal(err)
		}
		out := clean(t, r)
		if strings.Count(out, "= no") != len(asks) {
			t.Errorf("another sandbox reaches:\n%s", out)
		}
	}
}

func TestAThousandConnectionsToOnePort(t *testing.T) {
	at, s := newSite(t, "")
	made, err := s.Create(t.Context(), sandbox.CreateRequest{
		Language: new("python"), Mode: new("stateful"), Ports: []sandbox.PortRequest{port(7000, "tcp", 0)},
		ResourceLimits: &sandbox.LimitsRequest{Pids: new(2000), MemoryMB: new(1024)},
	})
	if err != nil {
		t.Fatal(err)
	}
	clean(t, s.python(t, made.ID, servers))
	all := make([]net.Conn, 1000)
	for i := range all {
		if all[i], err = at.dial("tcp", "127.0.0.1", made.Ports[0].HostPort); err != nil {
			t.Fatal(err)
		}
		defer all[i].Close()
		if _, err := all[i].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range all {
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		_ = c.(*net.TCPConn).CloseWrite()
	}
	for i, c := range all {
		if b, err := io.ReadAll(c); string(b) != "heard 5" {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
	}
}
