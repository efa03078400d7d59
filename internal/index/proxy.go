package index

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Address is where a machine finds the proxy, in a network of its own.
const Address = "127.0.0.1:80"

const self = "http://127.0.0.1"

// What one installation may take.
const (
	maxPage     = 32 << 20 // of a page or document that is read whole
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
