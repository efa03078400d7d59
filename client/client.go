// Package client is the Go client of outpost's HTTP API. Requests and answers are the types of package sandbox, and so
// are errors: sandbox.CodeOf tells what went wrong, and a *StatusError in the chain carries the HTTP status and the
// request id.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"outpost.run/outpost/sandbox"
)

// DefaultNamespace is used where none is named.
const DefaultNamespace = "default"

// maxAnswerBytes bounds one answer: two streams of 16 MiB and 8 MiB of files, in base64 and with JSON's escapes.
const maxAnswerBytes = 256 << 20

// Client calls one server with one credential in one namespace. It is safe for concurrent use.
type Client struct {
	base      string // http://127.0.0.1:8080, no slash at the end
	auth      string // the Authorization header
	namespace string
	http      *http.Client
	patience  time.Duration
}

// Option changes a Client at its making.
type Option func(*Client)

// WithNamespace works in another namespace than DefaultNamespace.
func WithNamespace(name string) Option { return func(c *Client) { c.namespace = name } }

// WithAPIKey uses an API key instead of a bearer token.
func WithAPIKey(name, secret string) Option {
	return func(c *Client) { c.auth = "API-Key " + name + "$" + secret }
}

// WithHTTPClient sends requests by h; http.DefaultClient unless given. A time limit of h ends long execs too: bound
// calls by their context instead.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithPatience waits out the rate limit of the credential, for so long in all a call, instead of giving RateLimited: such a call has done
// nothing.
func WithPatience(d time.Duration) Option { return func(c *Client) { c.patience = d } }

// New makes a client of the server at address (http://host:port) with a bearer token.
func New(address, token string, options ...Option) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no address of a server: want http://host:port", address)
	}
	c := &Client{base: strings.TrimSuffix(address, "/"), auth: "Bearer " + token, namespace: DefaultNamespace, http: http.DefaultClient}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// Namespace is the one that the client works in.
func (c *Client) Namespace() string { return c.namespace }

// Address is the server's, without a slash at the end.
func (c *Client) Address() string { return c.base }

// StatusError is the HTTP side of an error.
type StatusError struct {
	Status    int
	RequestID string // req_…, as in the server's log; "" where the answer has none
}

func (e *StatusError) Error() string {
	if e.RequestID == "" {
		return "HTTP " + strconv.Itoa(e.Status)
	}
	return fmt.Sprintf("HTTP %d, %s", e.Status, e.RequestID)
}

// inNamespace is a path below the namespace's sandboxes; elements are escaped.
func (c *Client) inNamespace(elements ...string) string {
	return path(append([]string{"auth", "v1", "seed", c.namespace, "sandbox"}, elements...)...)
}

func path(elements ...string) string {
	var b strings.Builder
	for _, e := range elements {
		b.WriteString("/" + url.PathEscape(e))
	}
	return b.String()
}

// call sends one request and decodes the answer into a T.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	raw, err := c.Raw(ctx, method, path, body)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return answer, fmt.Errorf("%s %s answered what is not the contract's JSON: %w", method, path, err)
	}
	return answer, nil
}

// Raw sends one request and gives the answer's body as it came; an answer that is an error becomes one. A nil body sends
// none.
func (c *Client) Raw(ctx context.Context, method, path string, body any) ([]byte, error) {
	res, err := c.send(ctx, method, path, body, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.severed(err)
	case len(raw) > maxAnswerBytes:
		return nil, fmt.Errorf("the answer of %s is over %d MiB", c.base, maxAnswerBytes>>20)
	}
	return raw, nil
}

// Once gives calls that create or run something an Idempotency-Key: one that is repeated with it within a day, since its answer was lost,
// gets the answer of the first and does nothing more. The same key with another request is refused (IdempotencyMismatch).
func Once(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, onceKey{}, key)
}

type onceKey struct{}

// send sends one request and gives an answer that is no error, with its body unread.
func (c *Client) send(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	for waited := time.Duration(0); ; {
		res, err := c.sendOnce(ctx, method, path, body, header)
		e, is := errors.AsType[*sandbox.Error](err)
		if !is || e.Code != sandbox.RateLimited || e.RetryAfterSecs == 0 {
			return res, err
		}
		d := time.Duration(e.RetryAfterSecs) * time.Second
		if _, once := body.(bytesBody); once || waited+d > c.patience {
			return nil, err
		}
		if pause(ctx, d); ctx.Err() != nil {
			return nil, ctx.Err()
		}
		waited += d
	}
}

func (c *Client) sendOnce(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var in io.Reader
	var size int64
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case bytesBody:
		in, size, kind = b.Reader, b.size, b.kind
	default:
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in, size = bytes.NewReader(text), int64(len(text))
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if key, is := ctx.Value(onceKey{}).(string); is && method == http.MethodPost {
		req.Header.Set("Idempotency-Key", key)
	}
	req.Header.Set("Authorization", c.auth)
	if body != nil {
		req.Header.Set("Content-Type", kind)
		if req.ContentLength = size; size == 0 {
			req.Body = http.NoBody
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		raw, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		return nil, errorOf(res, raw)
	}
	return res, nil
}

func (c *Client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, broken) {
			return c.severed(err)
		}
	}
	return fmt.Errorf("no server answers at %s: %w", c.base, err)
}

// ErrSevered is in the chain of an error, of code Lost, where the connection ended before the answer did: what was asked for may have
// happened, and may still happen.
var ErrSevered = errors.New("the connection broke off")

func (c *Client) severed(why error) error {
	return sandbox.Errorf(sandbox.Lost, errors.Join(ErrSevered, why), "the connection to %s was lost before the answer was whole", c.base)
}

// errorOf makes the error that an answer tells; one that is not the contract's (a proxy's page) keeps its beginning.
func errorOf(res *http.Response, raw []byte) error {
	status := &StatusError{Status: res.StatusCode, RequestID: res.Header.Get("X-Request-Id")}
	var answer sandbox.ErrorAnswer
	if json.Unmarshal(raw, &answer) != nil || answer.Error.Code == "" {
		return sandbox.Errorf(sandbox.Internal, status, "an answer that is none of outpost's: %.200q", raw)
	}
	e := sandbox.Errorf(answer.Error.Code, status, "%s", answer.Error.Message)
	e.Details = answer.Error.Details
	e.RetryAfterSecs, _ = strconv.Atoi(res.Header.Get("Retry-After"))
	return e
}
