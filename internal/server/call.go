package server

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/strict"
	"outpost.run/outpost/sandbox"
)

// call is one request on its way through a route.
type call struct {
	ctx       context.Context // the client's
	caller    service.Caller
	namespace string // of the path; "" where it has none
	id        string // of the path
	guestPort string // of the path
	execID    string // of the path
	pid       string // of the path
	rawQuery  string
	body      []byte
	in        io.Reader // the body of a route that takes bytes
	size      int64     // of that, -1 where nobody said
	cutBody   func()    // ends reading of in
	header    http.Header
	once      bool                   // it has an Idempotency-Key
	begins    func(*service.Running) // hears of the exec's record; nil: nobody does
	trace     *trace
}

// decode reads the body; faults are for the use case, which adds its own.
func (c *call) decode(into any) (sandbox.Faults, error) { return strict.JSON(c.body, into) }

// lasting is a context for what must not be left half made when the client goes away, because a repeat may join it.
func (c *call) lasting() context.Context {
	if c.once {
		return context.WithoutCancel(c.ctx)
	}
	return c.ctx
}

// handle leads a request through the route's rules to its handler.
func (s *Server) handle(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		t := traceOf(r)
		t.route, t.audit = rt.path, rt.audit
		s.metrics.CallRouted(rt.method, rt.path)
		c := &call{trace: t, ctx: r.Context(), id: pathValue(r, "id"), namespace: pathValue(r, "namespace"), guestPort: pathValue(r, "guest_port"), execID: pathValue(r, "exec_id"), pid: pathValue(r, "pid"), rawQuery: r.URL.RawQuery, header: r.Header}
		t.reads(chi.RouteContext(r.Context()).URLParams)
		if err := s.admit(w, r, rt, c); err != nil {
			s.fail(w, r, err)
			return
		}
		if err := s.auditBegin(t); err != nil {
			s.fail(w, r, err)
			return
		}
		if rt.page != nil {
			w.Header().Set("Content-Type", rt.page.contentType)
			w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
			_, _ = w.Write(rt.page.body())
			return
		}
		if rt.direct != nil {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // a test's writer has none
			rt.direct.ServeHTTP(w, r)
			return
		}
		if rt.hijacks != nil {
			if err := rt.hijacks(c, w, r); err != nil {
				s.fail(w, r, err)
			}
			return
		}
		if rt.stream != nil {
			if err := rt.stream(c, w); err != nil {
				s.fail(w, r, err)
			}
			return
		}
		if rt.takes != "" {
			defer c.takeBody(w, r, rt.patient)()
		}
		if rt.request != nil {
			body, err := readBody(w, r)
			if err != nil {
				s.fail(w, r, err)
				if sandbox.CodeOf(err) == sandbox.BodyTooLarge {
					drain(w, r)
				}
				return
			}
			c.body = body
		}
		if rt.live && wantsEvents(r) {
			s.liveExec(w, r, rt, c)
			return
		}
		a, err := s.answer(r, rt, c)
		t.fails(err)
		s.write(w, r, a)
		if err != nil && rt.takes != "" {
			drain(w, r)
		}
	}
}

// answer runs the handler, once only where the request has an Idempotency-Key and the route takes one.
func (s *Server) answer(r *http.Request, rt route, c *call) (service.Answer, error) {
	ran := false
	run := func() (service.Answer, error) {
		ran = true
		body, err := rt.handler(c)
		c.trace.makes(body)
		if other, is := body.(created); is && err == nil {
			return answerOf(http.StatusCreated, other.body, nil), nil
		}
		return answerOf(rt.status, body, err), err
	}
	key, given := r.Header["Idempotency-Key"]
	if !given || !rt.idempotent {
		return run()
	}
	if len(key) != 1 || !validKey(key[0]) {
		f := sandbox.Faults{{Field: "Idempotency-Key", Reason: "must be one header of 1 to 255 visible ASCII characters"}}
		err := f.Err(sandbox.Invalid)
		return answerOf(0, nil, err), err
	}
	c.once = true
	scope := strings.Join([]string{c.caller.ID, r.Method, r.URL.EscapedPath()}, " ")
	a, err := s.svc.Once(r.Context(), scope, key[0], sha256.Sum256(c.body), run, kept)
	if a.Status == 0 {
		a = answerOf(0, nil, err)
	}
	if !ran {
		c.trace.repeats(a)
	}
	return a, err
}

// kept says which answers an Idempotency-Key gets again.
func kept(a service.Answer) bool {
	return a.Status < http.StatusInternalServerError && a.Status != http.StatusTooManyRequests && a.Status != clientGone
}

func validKey(key string) bool {
	outside := func(c rune) bool { return c < '!' || c > '~' }
	return key != "" && len(key) <= 255 && !strings.ContainsFunc(key, outside)
}

func pathValue(r *http.Request, name string) string {
	raw := chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return raw // chi matched the decoded path
	}
	plain, err := url.PathUnescape(raw)
	if err != nil {
		return raw
	}
	return plain
}
