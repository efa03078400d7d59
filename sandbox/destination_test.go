package sandbox_test

import (
	"net/netip"
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestWhatIsPublic(t *testing.T) {
	for _, a := range []string{"8.8.8.8", "93.184.216.34", "1.1.1.1", "172.32.0.1", "100.128.0.1", "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2a00::1", "2003::1"} {
		if !sandbox.IsPublic(netip.MustParseAddr(a)) {
			t.Errorf("%s is public", a)
		}
	}
	for _, a := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
		"198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
		"::", "::1", "::ffff:8.8.8.8", "::ffff:10.0.0.1", "::8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:53aa:64c:1::1",
		"2001:10::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1",
		"fec0::1", "ff02::1", "4000::1", "2606:4700::1%eth0", "2a00::5efe:10.0.0.1", "2a00::200:5efe:10.0.0.1",
	} {
		if sandbox.IsPublic(netip.MustParseAddr(a)) {
			t.Errorf("%s is not public", a)
		}
	}
	if sandbox.IsPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestDestinations(t *testing.T) {
	block := netip.MustParsePrefix
	for text, want := range map[string]sandbox.Destination{
		"example.com":           {Host: "example.com"},
		"Example.COM.":          {Host: "example.com"},
		"*.example.com":         {Host: "example.com", Below: true},
		"example.com:443":       {Host: "example.com", Port: 443},
		"*.x_y.example.com:80":  {Host: "x_y.example.com", Below: true, Port: 80},
		"xn--bcher-kva.example": {Host: "xn--bcher-kva.example"},
		"8.8.8.8":               {Prefix: block("8.8.8.8/32")},
		"8.8.8.0/24:53":         {Prefix: block("8.8.8.0/24"), Port: 53},
		"0.0.0.0/0":             {Prefix: block("0.0.0.0/0")},
		"2606:4700::/32":        {Prefix: block("2606:4700::/32")},
		"[2606:4700::/32]:443":  {Prefix: block("2606:4700::/32"), Port: 443},
		"[2606:4700::1]":        {Prefix: block("2606:4700::1/128")},
		"203.0.113.7":           {Prefix: block("203.0.113.7/32")}, // of documentation: to be listed, never reached
	} {
		if got, err := sandbox.ParseDestination(text); got != want || err != nil {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "*", "*.", "*.*.com", "a..b", ".a", "-a.com", "a-.com", "a b", "a\x00.com", "evil\x00.example.com", "a/b", "http://a", "a:0", "a:65536", "a:x", "a:", "a:+1", "a:080",
		"ex*mple.com", "bücher.example", "1.2.3", "0x7f.1", "2130706433", "0x7f000001", "127.1", "1.2.3.4.5", "08.8.8.8", "8.8.8.8/33", "8.8.8.1/24", "8.8.8.8/",
		"10.0.0.0/8", "10.1.2.3", "127.0.0.1", "169.254.169.254", "192.168.0.0/16:80", "::1", "[::1]:80", "fd00::/8", "fe80::1%eth0", "::ffff:8.8.8.8", "64:ff9b::/96",
		"[a]:80", "[1.2.3.4]", "2606:4700::1:x:y", "a@b.com", "a.com#x", "a.com?x", "a\\b",
	} {
		if got, err := sandbox.ParseDestination(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

func TestWhatADestinationHas(t *testing.T) {
	for _, tc := range []struct {
		entry, host string
		port        uint16
		want        bool
	}{
		{"a.example", "a.example", 1, true}, {"a.example", "b.a.example", 1, false}, {"a.example:80", "a.example", 81, false},
		{"*.a.example", "a.example", 1, false}, {"*.a.example", "x.y.a.example", 1, true}, {"*.a.example", "xa.example", 1, false},
		{"8.8.8.8", "8.8.8.8", 1, false}, {"a.example", "", 1, false},
	} {
		d, err := sandbox.ParseDestination(tc.entry)
		if err != nil || d.Names(tc.host, tc.port) != tc.want {
			t.Errorf("%s names %s:%d: %v, %v", tc.entry, tc.host, tc.port, !tc.want, err)
		}
	}
	d, _ := sandbox.ParseDestination("8.8.8.0/24:53")
	if !d.Has(netip.MustParseAddrPort("8.8.8.1:53")) || d.Has(netip.MustParseAddrPort("8.8.8.1:54")) || d.Has(netip.MustParseAddrPort("8.8.9.1:53")) {
		t.Error("a block with a port has other addresses or ports")
	}
}
