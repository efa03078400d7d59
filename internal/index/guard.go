package index

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"outpost.run/outpost/sandbox"
)

// guard judges each request that goes out, those of redirects included, and adds the index's credentials where they belong.
type guard struct {
	p    *Proxy
	next http.RoundTripper
}

var errRefused = errors.New("the index leads to an address that is not taken")

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	u := r.URL
	owned := g.p.up.owns(u)
	plain := u.Scheme == "http" && !slices.ContainsFunc(g.p.up.Bases, func(b Base) bool { return b.URL.Scheme == "https" })
	if !owned && u.Scheme != "https" && !plain {
		return nil, errRefused
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !owned && !sandbox.IsPublic(ip) {
		return nil, errRefused
	}
	ctx := r.Context()
	if u.Scheme == "https" {
		ctx = context.WithValue(ctx, overTLS{}, true)
	}
	r = r.Clone(ctx)
	r.Header.Del("Authorization")
	r.Header.Del("Referer")
	g.p.up.authorize(r)
	return g.next.RoundTrip(r)
}

// dial connects to any address for the index's own hosts (and the host's web proxy), else to public ones alone, and to
// where the index was found itself if TLS proves that the other host is there too. The address that is judged is the one
// connected to.
func (p *Proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second, Resolver: p.resolver}
	if p.known(address) {
		conn, err := d.DialContext(ctx, network, address)
		if err == nil {
			p.found.Store(conn.RemoteAddr().String(), true)
		}
		return conn, err
	}
	d.Control = func(_, to string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(to)
		_, found := p.found.Load(to)
		if err != nil || !sandbox.IsPublic(at.Addr()) && !(found && ctx.Value(overTLS{}) != nil) {
			return errRefused
		}
		return nil
	}
	return d.DialContext(ctx, network, address)
}

// overTLS marks the context of a request whose other side must prove its name.
type overTLS struct{}

func (p *Proxy) known(address string) bool {
	for _, b := range p.up.Bases {
		if strings.HasSuffix(origin(b.URL), "://"+strings.ToLower(address)) {
			return true
		}
		via, err := http.ProxyFromEnvironment(&http.Request{URL: b.URL})
		if err == nil && via != nil && strings.HasSuffix(origin(via), "://"+strings.ToLower(address)) {
			return true
		}
	}
	return false
}
