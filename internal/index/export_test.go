package index

import "net"

// Resolve lets a proxy look names up elsewhere.
func (p *Proxy) Resolve(r *net.Resolver) { p.resolver = r }

// Public is what decides of an address.
var Public = public

// Auth is the Authorization header of each base.
func (u Upstream) Auth() (all []string) {
	for _, b := range u.Bases {
		all = append(all, b.auth)
	}
	return all
}
