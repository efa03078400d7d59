package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/tracing"
	"outpost.run/outpost/sandbox"
)

// trace is what the log line of a call says beside its method and status.
type trace struct {
	requestID  string
	route      string
	credential string
	namespace  string
	role       sandbox.Role
	action     string // of the audit log; "": none
	object     string // what the call is about
	made       string // what came of it: an id
	path       string // of a file
	err        error
	span       tracing.Span
}

type traceKey struct{}

func traceOf(r *http.Request) *trace {
	t, _ := r.Context().Value(traceKey{}).(*trace)
	return t
}

func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		s.metrics.CallBegins()
		t := &trace{requestID: sandbox.NewID(sandbox.RequestPrefix)}
		ctx, span := tracing.Request(r)
		t.span = span
		r = r.WithContext(context.WithValue(ctx, traceKey{}, t))
		out := &recorder{ResponseWriter: w}
		h := out.Header()
		h.Set("X-Request-Id", t.requestID)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		defer func() {
			aborted := recover()
			if aborted != nil && aborted != http.ErrAbortHandler {
				s.panicked(r, aborted)
				if out.status == 0 {
					s.fail(out, r, failed())
				}
				aborted = nil
			}
			took := time.Since(began)
			s.logCall(r, t, out, took)
			s.auditCall(r, t, out)
			t.endSpan(r, out)
			s.metrics.CallEnds(metrics.Call{Method: r.Method, Route: t.route, Status: out.status, Code: failure(t, out), Took: took})
			if aborted != nil {
				panic(aborted) // net/http ends the connection, so that nobody takes what came for the whole
			}
		}()
		next.ServeHTTP(out, r)
	})
}

// auditCall writes what changed something, or tried to, into the audit log.
func (s *Server) auditCall(r *http.Request, t *trace, out *recorder) {
	if t.action == "" {
		return
	}
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	s.audit.Write(audit.Entry{
		RequestID: t.requestID, Action: t.action, Credential: t.credential, Role: string(t.role), Namespace: t.namespace, Client: client,
		Object: t.object, Made: t.made, Path: t.path, Status: out.status, Code: sandbox.CodeOf(t.err),
	})
}

// endSpan tells the trace how the call ended. Names of attributes: OpenTelemetry's semantic conventions for HTTP.
func (t *trace) endSpan(r *http.Request, out *recorder) {
	if t.span.Recording() {
		t.span.Rename(r.Method + " " + t.route)
		t.span.Say("http.request.method", r.Method)
		t.span.Say("http.route", t.route)
		t.span.SayNumber("http.response.status_code", out.status)
		t.span.Say("outpost.request_id", t.requestID)
		t.span.Say("outpost.namespace", t.namespace)
		t.span.Say("outpost.object", t.object)
		t.span.Say("outpost.made", t.made)
	}
	err := t.err
	if out.status < http.StatusInternalServerError {
		err = nil // it was the client's
	}
	t.span.End(err)
}

// panicked notes a bug.
func (s *Server) panicked(r *http.Request, p any) {
	s.log.Error("a handler panicked", "request_id", traceOf(r).requestID, "panic", p, "stack", string(debug.Stack()))
}

func failed() error {
	return sandbox.Errorf(sandbox.Internal, nil, "the server failed; its log says more under this request id")
}

// failure is the code of a call that failed. A client that went away is no failure.
func failure(t *trace, out *recorder) sandbox.Code {
	if out.status == clientGone {
		return ""
	}
	return sandbox.CodeOf(t.err)
}

func (s *Server) logCall(r *http.Request, t *trace, out *recorder, took time.Duration) {
	level, attributes := slog.LevelInfo, []slog.Attr{
		slog.String("request_id", t.requestID), slog.String("method", r.Method), slog.String("route", t.route),
		slog.Int("status", out.status), slog.Float64("duration_ms", float64(took.Microseconds())/1000),
	}
	if t.credential != "" {
		attributes = append(attributes, slog.String("credential", t.credential), slog.String("namespace", t.namespace))
	}
	if t.object != "" {
		attributes = append(attributes, slog.String("object", t.object))
	}
	if t.made != "" {
		attributes = append(attributes, slog.String("made", t.made))
	}
	if t.err != nil {
		attributes = append(attributes, slog.String("code", string(sandbox.CodeOf(t.err))))
		if out.status >= http.StatusInternalServerError {
			level = slog.LevelWarn // busy, or an image is being made
			attributes = append(attributes, slog.Any("error", t.err))
		}
		if out.status == http.StatusInternalServerError {
			level = slog.LevelError
		}
	}
	s.log.LogAttrs(r.Context(), level, "call", attributes...)
}

// recorder remembers the status for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
