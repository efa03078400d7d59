package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

// look prints what a program reaches, in words that are the same for every way to be refused.
const look = `
import socket, urllib.request, sys
def tried(f):
	try: return f()
	except Exception as e: return "no"
def page(url): return tried(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
def tcp(host, port): return tried(lambda: socket.create_connection((host, port), 10).close() or "yes")
def names(host): return tried(lambda: ",".join(sorted({a[4][0] for a in socket.getaddrinfo(host, 80)})))
def udp(host, port):
	def f():
		s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
		s.settimeout(2)
		s.connect((host, port))
		for _ in range(3):
			try:
				s.send(b"x")
				return s.recv(10).decode()
			except TimeoutError: pass
		return "no"
	return tried(f)
for what in sys.argv[1:]:
	kind, _, rest = what.partition(" ")
	host, _, port = rest.rpartition(" ")
	print(what, "=", {"page": page, "names": names}[kind](rest) if kind in ("page", "names") else {"tcp": tcp, "udp": udp}[kind](host, int(port)))
`

func egress(mode string, allow ...string) *sandbox.NetworkRequest {
	return &sandbox.NetworkRequest{Egress: &mode, Allow: allow}
}

func TestProgramsReachWhatTheirEgressAllows(t *testing.T) {
	at, s := newSite(t, "", "--ports-bind", "0.0.0.0")
	at.Zone(map[string][]string{
		"web.example": {"93.184.216.34", "2600:9000:1::34"}, "other.example": {"93.184.216.35"}, "private.example": {"10.9.0.5"}, "mixed.example": {"10.9.0.5", "93.184.216.36"},
	})
	listening := s.Address()[strings.LastIndex(s.Address(), ":")+1:]
	never := map[string]string{
		"tcp 169.254.169.254 80": "no", "tcp 10.9.0.5 80": "no", "tcp 192.168.7.7 80": "no", "tcp 100.64.0.1 80": "no", "tcp fd00:ec2::254 80": "no", "tcp ::ffff:10.9.0.5 80": "no",
		"tcp 64:ff9b::a09:5 80": "no", "udp 10.9.0.5 7": "no", "tcp 93.184.216.2 " + listening: "no", "tcp 127.0.0.1 " + listening: "no", "tcp 10.0.0.1 " + listening: "no", "names private.example": "no",
	}
	for _, tc := range []struct {
		name    string
		network *sandbox.NetworkRequest
		preset  string
		want    map[string]string
	}{
		{"by default", nil, "standard", map[string]string{
			"page http://web.example/": "web.example at 93.184.216.34|web.example at 2600:9000:1::34", "names mixed.example": "93.184.216.36", "tcp 8.8.8.8 80": "yes", "udp 93.184.216.34 7": "x",
			"udp 2600:9000:1::34 7": "x", "names nobody.example": "no",
		}},
		{"as root", nil, "development", map[string]string{"page http://web.example/": "web.example at 93.184.216.34|web.example at 2600:9000:1::34"}},
		{"under maximum", nil, "maximum", map[string]string{"page http://web.example/": "no", "names web.example": "no", "tcp 8.8.8.8 80": "no", "udp 93.184.216.34 7": "no", "udp 10.0.0.1 53": "no"}},
		{"under maximum, asked for", egress("public"), "maximum", map[string]string{"page http://web.example/": "web.example at 93.184.216.34|web.example at 2600:9000:1::34"}},
		{"none", egress("none"), "standard", map[string]string{"page http://93.184.216.34/": "no", "names web.example": "no", "tcp 8.8.8.8 80": "no", "tcp 2600:9000:1::34 80": "no"}},
		{"a list", egress("allow", "web.example", "8.8.8.8:80"), "standard", map[string]string{
			"page http://web.example/": "web.example at 93.184.216.34|web.example at 2600:9000:1::34", "names other.example": "no", "tcp 93.184.216.35 80": "no", "tcp 8.8.8.8 80": "yes", "tcp 8.8.8.8 81": "no",
			"page http://93.184.216.34/": "no",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asks []string
			for what := range tc.want {
				asks = append(asks, what)
			}
			for what := range never {
				asks = append(asks, what)
			}
			code := look
			r, err := s.Execute(t.Context(), sandbox.ExecuteRequest{
				Language: new("python"), Code: &code, Args: asks, Network: tc.network, Security: &sandbox.SecurityRequest{Preset: &tc.preset}, TimeoutSecs: new(60),
			})
			if err != nil {
				t.Fatal(err)
			}
			out := clean(t, r)
			if lines := strings.Count(out, "\n") + 1; lines != len(asks) {
				t.Fatalf("%d of %d looks answered:\n%s", lines, len(asks), out)
			}
			for line := range strings.Lines(out) {
				what, got, _ := strings.Cut(strings.TrimSpace(line), " = ")
				want := tc.want[what] + never[what]
				if first, second, two := strings.Cut(want, "|"); got != want && !(two && (got == first || got == second)) {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			if len(r.Isolation.Missing) > 0 {
				t.Errorf("isolation misses %v", r.Isolation.Missing)
			}
			name := "egress_filtered"
			if tc.name == "none" || tc.name == "under maximum" {
				name = "no_egress"
			}
			if all := fmt.Sprint(r.Isolation.Effective); !strings.Contains(all, name) || strings.Contains(all, "egress_filtered") && strings.Contains(all, "no_egress") {
				t.Errorf("isolation says %v", all)
			}
		})
	}
	for _, name := range at.Asked() {
		if name != "web.example" && name != "private.example" && name != "mixed.example" && name != "nobody.example" {
			t.Errorf("the name server was asked for %q", name)
		}
	}
}

func TestAnAdoptedMachineReachesTheWorldAgain(t *testing.T) {
	at, s := newSite(t, "")
	at.Zone(map[string][]string{"web.example": {"93.184.216.34"}})
	made, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Mode: new("stateful")})
	if err != nil {
		t.Fatal(err)
	}
	code := look
	reaches := func(when string) {
		t.Helper()
		r, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &code, Args: []string{"page http://web.example/", "tcp 10.9.0.5 80"}})
		if err != nil {
			t.Fatal(err)
		}
		if out := clean(t, r); out != "page http://web.example/ = web.example at 93.184.216.34\ntcp 10.9.0.5 80 = no" || len(r.Isolation.Missing) > 0 {
			t.Errorf("%s: %s, missing %v", when, out, r.Isolation.Missing)
		}
	}
	reaches("at first")
	for _, end := range []func() error{s.kill, s.terminate} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		reaches("after a restart")
	}
	if _, err := s.Stop(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	reaches("after stop and start")
}

func TestAHostWithoutTunDevicesSaysSo(t *testing.T) {
	_, s := newSite(t, "/dev/net")
	for _, n := range []*sandbox.NetworkRequest{nil, egress("allow", "web.example")} {
		_, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Network: n})
		if sandbox.CodeOf(err) != sandbox.NotSupported || !strings.Contains(err.Error(), "modprobe tun") {
			t.Errorf("egress without a tun device: %v", err)
		}
	}
	if out := clean(t, s.once(t, sandbox.ExecuteRequest{Network: egress("none")}, "print('runs')")); out != "runs" {
		t.Error(out)
	}
}

// fetches are programs that print what a web server says, by what their language has for it, and how a refusal ends.
var fetches = map[string]string{
	"python": "import sys, urllib.request\nfor u in sys.argv[1:]:\n\ttry: print(urllib.request.urlopen(u, timeout=10).read().decode())\n\texcept Exception: print('no')",
	"bash":   "for u in \"$@\"; do curl -sS --max-time 10 \"$u\" 2>/dev/null && echo || echo no; done",
	"node": `(async () => { for (const u of process.argv.slice(2)) {
		try { console.log(await (await fetch(u, {signal: AbortSignal.timeout(10000)})).text()) } catch { console.log("no") } } })()`,
	"go": `package main
import ("fmt"; "io"; "net/http"; "os"; "time")
func main() { c := http.Client{Timeout: 10 * time.Second}
	for _, u := range os.Args[1:] {
		r, err := c.Get(u)
		if err != nil { fmt.Println("no"); continue }
		b, _ := io.ReadAll(r.Body); fmt.Println(string(b)) } }`,
	"rust": `use std::io::*;
fn get(u: &str) -> Result<String> {
	let host = u.trim_start_matches("http://").trim_end_matches('/');
	let mut s = std::net::TcpStream::connect((host, 80))?;
	write!(s, "GET / HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
	let mut all = String::new(); s.read_to_string(&mut all)?;
	Ok(all.split("\r\n\r\n").nth(1).unwrap_or("").to_string())
}
fn main() { for u in std::env::args().skip(1) { println!("{}", get(&u).unwrap_or("no".to_string())) } }`,
}

func TestEachLanguageFetchesByNameWhatItMay(t *testing.T) {
	at, s := newSite(t, "")
	at.Zone(map[string][]string{"web.example": {"93.184.216.34"}, "other.example": {"93.184.216.35"}, "private.example": {"10.9.0.5"}})
	for language, code := range fetches {
		t.Run(language, func(t *testing.T) {
			for _, tc := range []struct {
				network *sandbox.NetworkRequest
				want    string
			}{
				{nil, "web.example at 93.184.216.34\nother.example at 93.184.216.35\nno\nno"},
				{egress("allow", "web.example"), "web.example at 93.184.216.34\nno\nno\nno"},
				{egress("none"), "no\nno\nno\nno"},
			} {
				r, err := s.Execute(t.Context(), sandbox.ExecuteRequest{
					Language: &language, Code: &code, Network: tc.network, ResourceLimits: roomy(),
					Args: []string{"http://web.example/", "http://other.example/", "http://private.example/", "http://169.254.169.254/"},
				})
				if err != nil {
					t.Fatal(err)
				}
				if out := clean(t, r); out != tc.want {
					t.Errorf("with %+v: %q, want %q", tc.network, out, tc.want)
				}
			}
		})
	}
}
