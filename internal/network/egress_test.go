package network_test

import (
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/internal/network/networktest"
)

var forbidden = []string{
	"10.9.0.5", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16",
	"198.18.0.1", "203.0.113.1", "192.88.99.1", "240.0.0.1", hostOwn, everyone,
	"fd00:ec2::254", "fec0::1", "64:ff9b::a09:5", "64:ff9b:1::a09:5", "2002:a09:5::1", "2001:0:1::1", "2001:db8::1", host6,
}

func at(address, port string) string { return net.JoinHostPort(address, port) }

func TestPublicReachesThePublicInternetOnly(t *testing.T) {
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.Public})
	for _, a := range []string{"93.184.216.34", "8.8.8.8", "2600:9000:1::34", "2a00:1450::1"} {
		got, err := m.get(at(a, "80"), "some.example")
		if err != nil || got != "some.example at "+a {
			t.Errorf("%s: %q, %v", a, got, err)
		}
	}
	listenAtHost(t)
	for _, a := range forbidden {
		if a != everyone {
			c, err := net.DialTimeout("tcp", at(a, "80"), 5*time.Second)
			if err != nil {
				t.Errorf("the host itself doesn't reach %s, so that a refusal shows nothing: %v", a, err)
				continue
			}
			c.Close()
		}
		if c, err := m.dial("tcp", at(a, "80")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("tcp to %s: %v, %v; want it refused", a, c, err)
		}
		if answersUDP(m, at(a, "7")) {
			t.Errorf("udp to %s passes", a)
		}
	}
	for _, a := range []string{"127.0.0.1", "::1"} { // the machine's own loopback, and not the host's
		l, err := net.Listen("tcp", at(a, "8099"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.dial("tcp", at(a, "8099")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the host's %s: %v", a, err)
		}
		l.Close()
	}
}

// listenAtHost serves port 80 of all the host's own addresses, so that who reaches them gets an answer.
func listenAtHost(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

func TestNobodyAnswersPingsButTheGateway(t *testing.T) {
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.Public})
	var c net.PacketConn
	if err := netns.In(m.ns, func() (err error) { c, err = net.ListenPacket("ip4:icmp", "0.0.0.0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for a, answered := range map[string]bool{network.Resolver().String(): true, "93.184.216.34": false, "10.9.0.5": false, hostOwn: false} {
		b, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("x")}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteTo(b, &net.IPAddr{IP: net.ParseIP(a)}); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(map[bool]time.Duration{true: 10 * time.Second, false: 200 * time.Millisecond}[answered]))
		if _, from, err := c.ReadFrom(make([]byte, 1500)); (err == nil) != answered || answered && from.String() != a {
			t.Errorf("ping %s: %v, %v", a, from, err)
		}
	}
}

func answersUDP(m *machine, to string) bool {
	c, err := m.dial("udp", to)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	n, err := c.Read(make([]byte, 10))
	return err == nil && n == 1
}

func TestAHostAddressThatCameLaterIsRefused(t *testing.T) {
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.Public})
	if _, err := m.get("93.184.216.77:80", "x.example"); err != nil {
		t.Fatal(err)
	}
	own := []string{"93.184.216.77/32", "2600:9000:2::77/128"}
	if err := networktest.AddAddresses("lo", own...); err != nil {
		t.Fatal(err)
	}
	defer networktest.DropAddresses("lo", own...) //nolint:errcheck // of the tests' own network namespace
	listenAtHost(t)
	for _, a := range []string{"93.184.216.77", "2600:9000:2::77"} {
		if _, err := m.dial("tcp", at(a, "80")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the host's new address %s: %v", a, err)
		}
	}
}

func TestDatagrams(t *testing.T) {
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.Public})
	for _, a := range []string{"93.184.216.34:7", "[2600:9000:1::34]:7"} {
		for end := time.Now().Add(10 * time.Second); !answersUDP(m, a); {
			if time.Now().After(end) {
				t.Fatalf("no echo from %s", a)
			}
		}
	}
	if answersUDP(m, "93.184.216.34:9") {
		t.Error("an echo where nobody listens")
	}
}

func TestNoneHasNoLinkAndNoDNS(t *testing.T) {
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.None})
	for _, a := range []string{"93.184.216.34:80", "[2600:9000:1::34]:80", network.Resolver().String() + ":53"} {
		if _, err := m.dial("tcp", a); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("%s: %v, want no way there", a, err)
		}
		if _, err := m.dial("udp", a); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("udp %s: %v, want no way there", a, err)
		}
	}
}

func TestNamesAreResolvedAndFiltered(t *testing.T) {
	many := []string{}
	for i := range 200 {
		many = append(many, "93.184.217."+string(rune('1'+i%9)))
	}
	world.Zone(map[string][]string{
		"a.example":       {"93.184.216.34", "10.0.0.5", "2600:9000:1::34", "::1", "fd00::1", "127.0.0.1", hostOwn, "::ffff:93.184.216.34"},
		"private.example": {"10.9.0.5", "169.254.169.254"}, "many.example": many, "db.internal": {"93.184.216.34"}, "printer.local": {"93.184.216.34"}, "host": {"93.184.216.34"},
	})
	m := newMachine(t, open(t, network.Options{}), network.Egress{Mode: network.Public})
	if got := m.addresses("A.Example"); !slices.Equal(got, []string{"93.184.216.34", "2600:9000:1::34"}) {
		t.Errorf("a.example is %v", got)
	}
	if got := m.addresses("private.example"); len(got) > 0 {
		t.Errorf("private.example is %v", got)
	}
	for _, name := range []string{"db.internal", "printer.local", "host", "nobody.example", "5.0.9.10.in-addr.arpa", "evil\x00.example", "a b.example"} {
		if answer, err := m.lookUp("udp", name, dnsmessage.TypeA); err != nil || answer.RCode != dnsmessage.RCodeNameError || len(answer.Answers) > 0 {
			t.Errorf("%q: %+v, %v", name, answer, err)
		}
	}
	if answer, err := m.lookUp("udp", "many.example", dnsmessage.TypeA); err != nil || !answer.Truncated {
		t.Errorf("a large answer by UDP is not cut: %v", err)
	}
	if answer, err := m.lookUp("tcp", "many.example", dnsmessage.TypeA); err != nil || len(answer.Answers) != 200 {
		t.Errorf("a large answer by TCP has %d records, %v", len(answer.Answers), err)
	}
	for _, name := range world.Asked() {
		if strings.HasSuffix(name, ".local") || strings.HasSuffix(name, ".internal") || strings.ContainsAny(name, "\x00 ") || strings.HasSuffix(name, "arpa") {
			t.Errorf("the host's resolver was asked for %q", name)
		}
	}
}

func allow(entries ...string) network.Egress {
	return network.Egress{Mode: network.Allow, Allow: entries}
}

func TestAllowReachesWhatIsListedOnly(t *testing.T) {
	world.Zone(map[string][]string{
		"ok.example": {"93.184.216.34"}, "sub.below.example": {"93.184.216.35"}, "below.example": {"93.184.216.36"}, "port.example": {"93.184.216.37"},
		"other.example": {"93.184.216.38"},
	})
	m := newMachine(t, open(t, network.Options{}), allow("ok.example", "*.below.example", "port.example:81", "8.8.8.0/24:80", "2600:9000:1::/64", "0.0.0.0/0:82"))
	if _, err := m.dial("tcp", "93.184.216.34:80"); err == nil {
		t.Error("an address is reached before its name was asked for")
	}
	for name, want := range map[string]int{"ok.example": 1, "sub.below.example": 1, "below.example": 0, "port.example": 1, "other.example": 0, "x.ok.example": 0, "ok.example.evil.example": 0} {
		if got := m.addresses(name); len(got) != want {
			t.Errorf("%s resolves to %v", name, got)
		}
	}
	for _, name := range world.Asked() {
		if name != "ok.example" && name != "sub.below.example" && name != "port.example" {
			t.Errorf("the world was told of %s", name)
		}
	}
	for to, reached := range map[string]bool{
		"93.184.216.34:80": true, "93.184.216.34:7": true, "93.184.216.35:80": true, "93.184.216.36:80": false, "93.184.216.37:81": true, "93.184.216.37:80": false,
		"93.184.216.38:80": false, "8.8.8.8:80": true, "8.8.8.8:81": false, "8.8.9.8:80": false, "[2600:9000:1::34]:80": true, "[2600:9000:3::34]:80": false,
		"10.9.0.5:82": false, hostOwn + ":82": false, "169.254.169.254:82": false,
	} {
		c, err := m.dial("tcp", to)
		if (err == nil) != reached {
			t.Errorf("%s: %v", to, err)
		}
		if err == nil {
			c.Close()
		}
	}
	if answersUDP(m, "93.184.216.34:7") {
		t.Error("a name opens UDP, in which it could not be seen which name is meant")
	}
	if !answersUDP(m, "[2600:9000:1::34]:7") {
		t.Error("a block of addresses does not open UDP")
	}
}

func TestTheNameInTLSAndHTTPIsHeldAgainstTheList(t *testing.T) {
	world.Zone(map[string][]string{"ok.example": {"93.184.216.34"}, "ok2.example": {"93.184.216.35"}})
	m := newMachine(t, open(t, network.Options{}), allow("ok.example", "*.ok2.example", "8.8.8.8"))
	m.addresses("ok.example")
	for _, tc := range []struct {
		at, name string
		passes   bool
	}{
		{"93.184.216.34:80", "ok.example", true}, {"93.184.216.34:80", "OK.example", true}, {"93.184.216.34:80", "evil.example", false}, {"93.184.216.34:80", "93.184.216.34", false},
		{"93.184.216.34:443", "ok.example", true}, {"93.184.216.34:443", "a.ok2.example", true}, {"93.184.216.34:443", "evil.example", false}, {"93.184.216.34:443", "93.184.216.34", false},
		{"8.8.8.8:80", "evil.example", true}, {"8.8.8.8:443", "evil.example", true},
	} {
		got, err := m.get(tc.at, tc.name)
		if (err == nil) != tc.passes {
			t.Errorf("%s with name %s: %q, %v", tc.at, tc.name, got, err)
		}
	}
	const (
		evil = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
		ok   = "GET / HTTP/1.1\r\nHost: ok.example:80\r\nConnection: close\r\n\r\n"
	)
	for text, passes := range map[string]bool{
		"\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                           false,
		"GET http://evil.example/ HTTP/1.1\r\nHost: ok.example\r\n\r\n":                              false,
		"GET / HTTP/1.1\r\nHost: ok.example\r\nHost: evil.example\r\n\r\n":                           false,
		"GET\t/ HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                              false,
		"get / HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                               false,
		" GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                              false,
		"GET\v/ HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                              false,
		"GET /\x00 HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                           false,
		"GET / http/1.1\r\nHost: evil.example\r\n\r\n":                                               false,
		"GET / HTTP/1.1\r\nHost : ok.example\r\nHost: evil.example\r\n\r\n":                          false,
		"GET / HTTP/1.1\r\nHost: ok.example\r\n .evil.example\r\n\r\n":                               false,
		"CONNECT evil.example:80 HTTP/1.1\r\nHost: ok.example\r\n\r\n":                               false,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                                           false,
		"GET / HTTP/1.1\r\n\r\n":                                                                     false,
		"GET / HTTP/1.1\r\nHost: ok.example\x00.evil.example\r\n\r\n":                                false,
		"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 100<<10) + "\r\nHost: evil.example\r\n\r\n":    false,
		strings.Repeat("\r\n", 32<<10) + evil:                                                        false,
		strings.Repeat(" ", 64<<10) + evil:                                                           false,
		strings.Repeat("\n", 100<<10) + evil:                                                         false,
		strings.Repeat("\r\n", 20<<10) + "GET /" + strings.Repeat("a", 40<<10) + evil[len("GET /"):]: false,
		"GET /" + strings.Repeat("a", 63<<10) + evil[len("GET /"):]:                                  false,
		"G3T" + evil[len("GET"):]:                                                                    false,
		"!#$%&'*+-.^_`|~" + evil[len("GET"):]:                                                        false,
		strings.Repeat("METHOD", 4) + evil[len("GET"):]:                                              false,
		strings.Repeat("M", 20<<10) + evil[len("GET"):]:                                              false,
		strings.Repeat("M", 70<<10) + evil[len("GET"):]:                                              false,
		"GET http://evil.example/\r\n\r\n":                                                           false,
		"GET http://ok.example:x/\r\n\r\n":                                                           false,
		"GET http://ok.example/\r\n\r\n":                                                             true,
		strings.Repeat("\r\n", 2<<10) + ok:                                                           true,
		strings.Repeat("G", 2<<10) + ok[len("GET"):]:                                                 true,
		ok: true,
	} {
		c, err := m.dial("tcp", "93.184.216.34:80")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(text))
		n, _ := c.Read(make([]byte, 100))
		if (n > 0) != passes {
			t.Errorf("%.60q was answered by %d bytes", text, n)
		}
		c.Close()
	}
	c, err := m.dial("tcp", "93.184.216.34:7") // neither: a program that speaks first, in pieces
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, text := range []string{"EHLO x\r\n", "\x00\x01", "abc"} {
		got := make([]byte, len(text))
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(got); err != nil || string(got) != text {
			t.Errorf("echo of %q: %q, %v", text, got, err)
		}
	}
}

func TestRebindingIsRefused(t *testing.T) {
	world.Zone(nil)
	now := "93.184.216.34"
	world.Answer("turn.example", now)
	for _, e := range []network.Egress{allow("turn.example"), {Mode: network.Public}} {
		m := newMachine(t, open(t, network.Options{}), e)
		if got := m.addresses("turn.example"); len(got) != 1 {
			t.Fatalf("turn.example is %v", got)
		}
		if _, err := m.get("93.184.216.34:80", "turn.example"); err != nil {
			t.Error(err)
		}
		for _, turned := range []string{"10.9.0.5", "127.0.0.1", "169.254.169.254", hostOwn} {
			world.Answer("turn.example", turned)
			if got := m.addresses("turn.example"); len(got) > 0 {
				t.Errorf("turn.example now is %v", got)
			}
			if _, err := m.dial("tcp", turned+":80"); err == nil {
				t.Errorf("%s is reached after the name turned to it", turned)
			}
		}
		world.Answer("turn.example", now)
	}
}
