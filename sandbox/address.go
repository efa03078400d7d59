package sandbox

import (
	"net"
	"net/netip"
	"slices"
)

// special are address blocks that are not the public internet's, though some lie in its range. Source: IANA's registries
// of special-purpose IPv4 and IPv6 addresses, and of multicast addresses.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
	"192.0.0.0/24",   // protocol assignments, a cloud's metadata among them
	"192.88.99.0/24", // relays of 6to4
	"198.18.0.0/15",  // benchmarks
	"224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32", // a cloud's metadata at an address that looks public

	"2001::/23",               // protocol assignments: Teredo, benchmarks, ORCHID
	"2002::/16",               // 6to4
	"2620:4f:8000::/48",       // sinks of reverse lookups of private addresses
	"2001:67c:2960:6464::/64", // a public NAT64
)

// examples are of documentation: nobody is there. They are not reached, but may be listed.
var examples = prefixes("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")

// unicast6 is all that was ever given out of IPv6: what lies outside is loopback, link- and site-local, unique local,
// multicast, IPv4-mapped, NAT64 or nobody's.
var unicast6 = netip.MustParsePrefix("2000::/3")

func prefixes(all ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(all))
	for i, s := range all {
		list[i] = netip.MustParsePrefix(s)
	}
	return list
}

// IsPublic says whether an address is one of the public internet, and no other way to write one that is not.
func IsPublic(a netip.Addr) bool {
	switch {
	case !a.IsValid(), a.Zone() != "":
		return false
	case a.Is6() && (!unicast6.Contains(a) || isISATAP(a)):
		return false
	}
	has := func(p netip.Prefix) bool { return p.Contains(a) }
	return !slices.ContainsFunc(special, has) && !slices.ContainsFunc(examples, has)
}

// IsOneOf says whether an address is one of a host's own, as net.InterfaceAddrs gives them; one of them that can't be read may be it.
func IsOneOf(a netip.Addr, own []net.Addr) bool {
	return slices.ContainsFunc(own, func(o net.Addr) bool {
		p, err := netip.ParsePrefix(o.String())
		return err != nil || p.Addr().Unmap().WithZone("") == a.Unmap()
	})
}

// isISATAP: an IPv4 address in the lower half that a router of that prefix sends on. Source: RFC 5214, section 6.1.
func isISATAP(a netip.Addr) bool {
	b := a.As16()
	return b[8]&^0x03 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}
