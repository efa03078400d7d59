package index

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"outpost.run/outpost/sandbox"
)

// Address is where a machine finds the proxy, in a network of its own.
const Address = "127.0.0.1:80"

const self = "http://127.0.0.1"

// What one installation may take.
const (
	maxPage     = 64 << 20 // of a page or document that is read whole
	maxBytes    = 8 << 30  // of all that it fetches
	maxRequests = 100_000
	maxAtOnce   = 32
	maxRewrites = 2 // pages at once that are read whole
	maxHops     = 5
	maxLinks    = 1_000_000
)

// Proxy serves one upstream. It is made for one installation: the links that it gave out are good as long as it lives.
type Proxy struct {
	up       Upstream
	log      *slog.Logger
	client   *http.Client
	key      [32]byte
	handler  http.Handler
	slots    chan struct{}
	resolver *net.Resolver // nil: the host's
	pages    chan struct{}

	found    sync.Map // the addresses, with ports, at which the index itself was reached
	mu       sync.Mutex
	links    map[string]*url.URL // that were given out, by their name
	left     atomic.Int64        // bytes that may still be fetched
	requests atomic.Int64
	sumBase  atomic.Pointer[url.URL] // where the checksum database was found
	dl       atomic.Pointer[string]  // cargo: the template of the crates' addresses
}

// NewProxy makes one; log takes what went wrong at the upstream, for the operator.
func NewProxy(u Upstream, log *slog.Logger) *Proxy {
	p := &Proxy{up: u, log: log, links: map[string]*url.URL{}, slots: make(chan struct{}, maxAtOnce), pages: make(chan struct{}, maxRewrites)}
	_, _ = rand.Read(p.key[:]) // never fails
	p.left.Store(maxBytes)
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: p.dial, TLSHandshakeTimeout: 20 * time.Second,
		ResponseHeaderTimeout: time.Minute, MaxIdleConnsPerHost: maxAtOnce, IdleConnTimeout: 30 * time.Second,
		ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
	}
	p.client = &http.Client{Transport: &guard{p, transport}, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxHops {
			return errors.New("more redirects than are followed")
		}
		return nil
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("/link/{mac}/{name}", p.link)
	switch u.Manager {
	case Pip:
		mux.HandleFunc("/pip/{n}/{name}/{$}", p.pipPage)
	case Npm:
		mux.HandleFunc("/npm/", p.npmDocument)
	case Go:
		mux.HandleFunc("/go/", p.goFile)
	case Cargo:
		mux.HandleFunc("/cargo/", p.cargoFile)
	}
	p.handler = mux
	return p
}

// Close lets go of idle connections.
func (p *Proxy) Close() { p.client.CloseIdleConnections() }

// ServeHTTP answers what is asked in the machine. Nothing in there is believed.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "only GET and HEAD are answered", http.StatusMethodNotAllowed)
		return
	case p.requests.Add(1) > maxRequests:
		http.Error(w, "one installation may not ask for more", http.StatusTooManyRequests)
		return
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
		p.handler.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

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

// get asks the upstream; of the machine's request it takes a few headers.
func (p *Proxy) get(r *http.Request, u *url.URL) (*http.Response, error) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if r.Header.Get("Accept-Encoding") == "identity" {
		out.Header.Set("Accept-Encoding", "identity")
	}
	for _, name := range []string{"Accept", "Range", "If-None-Match", "If-Modified-Since", "If-Range"} {
		if v := r.Header.Get(name); v != "" {
			out.Header.Set(name, v)
		}
	}
	out.Header.Set("User-Agent", "outpost")
	resp, err := p.client.Do(out)
	if err != nil && r.Context().Err() == nil {
		p.log.Warn("a package index could not be asked", "manager", p.up.Manager, "error", err)
	}
	return resp, err
}

// unreachable is the answer where the upstream gave none. The installer shows it to the client: it names no host.
func unreachable(w http.ResponseWriter, err error) {
	text := "the package index of this server did not answer"
	if errors.Is(err, errRefused) {
		text = "the package index of this server leads to an address that is not taken"
	}
	http.Error(w, text, http.StatusBadGateway)
}

// pass hands an answer on as it is.
func (p *Proxy) pass(w http.ResponseWriter, resp *http.Response) {
	defer resp.Body.Close()
	for _, name := range []string{"Content-Type", "Etag", "Last-Modified", "Content-Range", "Accept-Ranges", "Cache-Control"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	if resp.ContentLength >= 0 && !resp.Uncompressed {
		w.Header().Set("Content-Length", fmt.Sprint(resp.ContentLength))
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, p.metered(resp.Body)); err != nil {
		panic(http.ErrAbortHandler) // so that the machine sees that it is cut
	}
}

var errTooMuch = errors.New("one installation may not fetch more")

// metered takes what is read from what may still be fetched.
func (p *Proxy) metered(r io.Reader) io.Reader { return &meter{p, r} }

type meter struct {
	p *Proxy
	r io.Reader
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if m.p.left.Add(-int64(n)) < 0 {
		return n, errTooMuch
	}
	return n, err
}

// page reads a whole answer that is to be rewritten; what is no success it hands on, without a body. done says so.
func (p *Proxy) page(w http.ResponseWriter, r *http.Request, u *url.URL) (body []byte, resp *http.Response, done func(), ok bool) {
	select {
	case p.pages <- struct{}{}:
	case <-r.Context().Done():
		return nil, nil, nil, false
	}
	free := func() { <-p.pages }
	asked := r.Clone(r.Context())
	asked.Method = http.MethodGet
	resp, err := p.get(asked, u)
	if err != nil {
		free()
		unreachable(w, err)
		return nil, nil, nil, false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		free()
		status(w, resp.StatusCode)
		return nil, nil, nil, false
	}
	body, err = io.ReadAll(io.LimitReader(p.metered(resp.Body), maxPage+1))
	if err == nil && len(body) > maxPage {
		err = errTooMuch
	}
	if err != nil {
		free()
		p.log.Warn("a package index's answer could not be read", "manager", p.up.Manager, "error", err)
		unreachable(w, err)
		return nil, nil, nil, false
	}
	return body, resp, free, true
}

// status hands on what the upstream said, in words of our own.
func status(w http.ResponseWriter, code int) {
	switch {
	case code == http.StatusNotModified:
		w.WriteHeader(code)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		http.Error(w, "the package index refuses this server's credentials, or asks for some", http.StatusForbidden)
	case code >= 400:
		http.Error(w, "the package index answered: "+http.StatusText(code), code)
	default:
		http.Error(w, "the package index gave an unknown answer", http.StatusBadGateway)
	}
}

// reply sends what was rewritten.
func reply(w http.ResponseWriter, resp *http.Response, contentType string, body []byte) {
	for _, name := range []string{"Etag", "Last-Modified", "Cache-Control"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(body)
}

// signed gives the address inside the machine of a file that the index named. It tells nothing of where that is: the
// index's own address may be one that is worth something, and the machine is not to make such names itself.
func (p *Proxy) signed(u *url.URL) string {
	bare := *u
	bare.Fragment, bare.RawFragment, bare.User = "", "", nil
	name := p.mac(bare.String())
	p.mu.Lock()
	if len(p.links) < maxLinks {
		p.links[name] = &bare
	}
	p.mu.Unlock()
	out := self + "/link/" + name + "/" + url.PathEscape(path.Base(bare.Path))
	if u.Fragment != "" {
		out += "#" + u.EscapedFragment()
	}
	return out
}

func (p *Proxy) mac(text string) string {
	h := hmac.New(sha256.New, p.key[:])
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// link fetches a file that the index named, or for pip its metadata, which lies beside it. Source: PEP 658.
func (p *Proxy) link(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	known := p.links[r.PathValue("mac")]
	p.mu.Unlock()
	if known == nil {
		http.Error(w, "the index named no such file", http.StatusNotFound)
		return
	}
	u := *known
	switch name := path.Base(u.Path); r.PathValue("name") {
	case name:
	case name + ".metadata":
		u.Path, u.RawPath = u.Path+".metadata", ""
	default:
		http.Error(w, "the index named no such file", http.StatusNotFound)
		return
	}
	p.file(w, r, &u)
}

// file fetches a file and hands it on as it comes.
func (p *Proxy) file(w http.ResponseWriter, r *http.Request, u *url.URL) {
	r = r.Clone(r.Context())
	r.Header.Set("Accept-Encoding", "identity") // what is packed stays so: its sum is known
	resp, err := p.get(r, u)
	if err != nil {
		unreachable(w, err)
		return
	}
	if resp.StatusCode >= 300 {
		resp.Body.Close()
		status(w, resp.StatusCode)
		return
	}
	p.pass(w, resp)
}
