package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"outpost.run/outpost/sandbox"
)

// Registries are asked straight, without a proxy: only so is the address that is checked the one that is connected to.

// errPrivate means that a registry's name leads to where it may not.
var errPrivate = errors.New("a private address that is not listed")

// guard dials public addresses, and others for the registries that the operator lists, by the address really connected to.
type guard struct {
	private []string // HOST or HOST:PORT; * is all
	dialer  net.Dialer
	own     func() ([]net.Addr, error) // the host's addresses
}

// judge wants a public address that is not one of the host's own: what listens there may take us for a neighbour.
func (g *guard) judge(a netip.Addr) error {
	a = a.Unmap()
	own, err := g.own()
	if err != nil || !sandbox.IsPublic(a) || sandbox.IsOneOf(a, own) {
		return errors.Join(errPrivate, err)
	}
	return nil
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	d := g.dialer
	if !slices.ContainsFunc(g.private, func(p string) bool { return p == "*" || strings.EqualFold(p, host) || strings.EqualFold(p, address) }) {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return errPrivate
			}
			return g.judge(to.Addr())
		}
	}
	return d.DialContext(ctx, network, address)
}

// How patient a pull is; variables for the tests.
var (
	stall   = 30 * time.Second       // without a byte, before it asks again for the rest
	again   = 200 * time.Millisecond // before it asks again the first time; doubled each time that brings nothing
	retries = 6                      // that bring nothing
)

const answerBytes = 16 << 20 // of a manifest or a token

func newTransport(private []string) http.RoundTripper {
	g := guard{private, net.Dialer{Timeout: 15 * time.Second}, net.InterfaceAddrs}
	return &resuming{&http.Transport{
		DialContext: g.dial, TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: 30 * time.Second,
		ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: 1 << 20,
	}}
}

// resuming goes on with a blob whose stream was cut or hangs, from where it was; what is no blob it bounds. That what
// comes is what was asked for is checked by its digest.
type resuming struct{ http.RoundTripper }

func (t *resuming) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	began := time.Now()
	resp, err := t.RoundTripper.RoundTrip(req.WithContext(ctx))
	if slow := note(ctx, time.Since(began)-leisure, 0); slow != nil && err == nil {
		resp.Body.Close()
		err = slow
	}
	if err != nil {
		cancel()
		return nil, err
	}
	if !isBlob(req) || req.Method != http.MethodGet || resp.StatusCode != http.StatusOK {
		resp.Body = &bounded{resp.Body, ctx, cancel, answerBytes}
		return resp, nil
	}
	resp.Body = &blob{t: t.RoundTripper, req: req, body: resp.Body, cancel: cancel, size: resp.ContentLength}
	return resp, nil
}

// isBlob tells whether a request, or the one that was sent on to it, asks for a blob.
func isBlob(req *http.Request) bool {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return strings.Contains(req.URL.Path, "/blobs/")
}

// bounded is an answer of so many bytes at most.
type bounded struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelFunc
	left   int64
}

func (b *bounded) Read(p []byte) (int, error) {
	alarm := time.AfterFunc(stall, b.cancel)
	began := time.Now()
	n, err := b.ReadCloser.Read(p)
	alarm.Stop()
	if slow := note(b.ctx, time.Since(began), n); slow != nil {
		return n, slow
	}
	if b.left -= int64(n); b.left < 0 {
		return n, fmt.Errorf("an answer of more than %d bytes", int64(answerBytes))
	}
	return n, err
}

func (b *bounded) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// blob is a blob's body.
type blob struct {
	t      http.RoundTripper
	req    *http.Request
	body   io.ReadCloser
	cancel context.CancelFunc
	at     int64
	size   int64 // -1: unknown
	failed int   // times in a row
}

func (b *blob) Read(p []byte) (int, error) {
	for {
		alarm := time.AfterFunc(stall, b.cancel)
		began := time.Now()
		n, err := b.body.Read(p)
		alarm.Stop()
		if slow := note(b.req.Context(), time.Since(began), n); slow != nil {
			return n, slow
		}
		if n > 0 {
			b.at += int64(n)
			b.failed = 0
			if err != io.EOF {
				err = nil // if it is one, it comes again
			}
			return n, err
		}
		if err == nil || err == io.EOF || b.size < 0 || b.at >= b.size {
			return n, err
		}
		if err := b.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume asks for the rest.
func (b *blob) resume(why error) error {
	b.body.Close()
	for {
		if b.failed++; b.failed > retries {
			return fmt.Errorf("cut off at byte %d of %d: %w", b.at, b.size, why)
		}
		select {
		case <-time.After(again << (b.failed - 1)):
		case <-b.req.Context().Done():
			return b.req.Context().Err()
		}
		ctx, cancel := context.WithCancel(b.req.Context())
		req := b.req.Clone(ctx)
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.at))
		began := time.Now()
		resp, err := b.t.RoundTrip(req)
		if slow := note(ctx, time.Since(began)-leisure, 0); slow != nil {
			if err == nil {
				resp.Body.Close()
			}
			cancel()
			return slow
		}
		if err != nil {
			cancel()
			why = err
			continue
		}
		if resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", b.at)) {
			b.body, b.cancel = resp.Body, cancel
			return nil
		}
		if resp.StatusCode == http.StatusOK { // it has no ranges: what is known already is passed over
			if _, err = io.CopyN(io.Discard, resp.Body, b.at); err == nil {
				b.body, b.cancel = resp.Body, cancel
				return nil
			}
			why = err
		} else {
			why = fmt.Errorf("the rest is refused: %s", resp.Status)
		}
		resp.Body.Close()
		cancel()
	}
}

func (b *blob) Close() error {
	defer b.cancel()
	return b.body.Close()
}
