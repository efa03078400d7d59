package index

import "net"

// Resolve lets a proxy look names up elsewhere.
func (p *Proxy) Resolve(r *net.Resolver) { p.resolver = r }

// Auth is the Authorization header of each base.
func (u Upstream) Auth() (all []string) {
	for _, b := range u.Bases {
		all = append(all, b.auth)
	}
	return all
}
