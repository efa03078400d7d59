package index

import "net/netip"

// special are the ranges that are not the public Internet's. Source: IANA's special-purpose address registries.
var special = func() (all []netip.Prefix) {
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	} {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}()

// global is all of IPv6 that is handed out to the public; what maps IPv4 or tunnels lies outside of it or below tunnels.
var (
	global  = netip.MustParsePrefix("2000::/3")
	tunnels = []netip.Prefix{netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20")}
)

// public says that an address is one of the public Internet's.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	ranges := special
	if ip.Is6() {
		if !global.Contains(ip) {
			return false
		}
		ranges = tunnels
	}
	for _, r := range ranges {
		if r.Contains(ip) {
			return false
		}
	}
	return true
}
