package network

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"outpost.run/outpost/sandbox"
)

// rules are what a machine's egress allows, beside what nobody reaches.
type rules struct {
	all     bool // every public address
	allowed []sandbox.Destination

	mu    sync.Mutex
	named map[netip.Addr][]grant // what our DNS answered for allowed names
}

// grant lets an address be reached by one entry of the list, for a time.
type grant struct {
	entry int
	until time.Time
}

const (
	maxNamed  = 4096             // addresses kept of one machine's answers
	keepNamed = 10 * time.Minute // beyond the answer's own time to live: programs keep addresses
	mostNamed = 24 * time.Hour
)

func newRules(e Egress) (*rules, error) {
	r := &rules{all: e.Mode == Public, named: map[netip.Addr][]grant{}}
	if !r.all && e.Mode != Allow {
		return nil, sandbox.Errorf(sandbox.Invalid, nil, "network.egress must be none, public or allow")
	}
	if r.all {
		return r, nil
	}
	for _, text := range e.Allow {
		d, err := sandbox.ParseDestination(text)
		if err != nil {
			return nil, sandbox.Errorf(sandbox.Invalid, nil, "network.allow: %s", err)
		}
		r.allowed = append(r.allowed, d)
	}
	return r, nil
}

// verdict is how a connection is allowed.
type verdict int

const (
	refused verdict = iota
	byAddress
	byName // so that what it says of the name it wants is held against the rules, too
)

func (r *rules) judge(to netip.AddrPort) verdict {
	if r.all {
		return byAddress
	}
	for _, d := range r.allowed {
		if d.Has(to) {
			return byAddress
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, g := range r.named[to.Addr()] {
		if port := r.allowed[g.entry].Port; now.Before(g.until) && (port == 0 || port == to.Port()) {
			return byName
		}
	}
	return refused
}

// names says whether a name is allowed on a port.
func (r *rules) names(name string, port uint16) bool {
	for _, d := range r.allowed {
		if d.Names(name, port) {
			return true
		}
	}
	return false
}

// resolves says whether a name may be asked for.
func (r *rules) resolves(name string) bool {
	if r.all {
		return true
	}
	for _, d := range r.allowed {
		if d.Names(name, d.Port) {
			return true
		}
	}
	return false
}

// learn notes which addresses our DNS gave for an allowed name.
func (r *rules) learn(name string, addresses []netip.Addr, ttl time.Duration) {
	if r.all || len(addresses) == 0 {
		return
	}
	now := time.Now()
	until := now.Add(min(ttl+keepNamed, mostNamed))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addresses {
		if len(r.named) >= maxNamed && r.named[a] == nil {
			r.forget(now)
		}
		for entry, d := range r.allowed {
			if !d.Names(name, d.Port) {
				continue
			}
			at := slices.IndexFunc(r.named[a], func(g grant) bool { return g.entry == entry })
			if at < 0 {
				r.named[a] = append(r.named[a], grant{entry, until})
			} else {
				r.named[a][at].until = until
			}
		}
	}
}

// forget makes room: for what is out of time, else for anything.
func (r *rules) forget(now time.Time) {
	for a, grants := range r.named {
		if !slices.ContainsFunc(grants, func(g grant) bool { return now.Before(g.until) }) {
			delete(r.named, a)
		}
	}
	for a := range r.named {
		if len(r.named) < maxNamed {
			return
		}
		delete(r.named, a)
	}
}
