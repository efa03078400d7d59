package server

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/sandbox"
)

// trace is what the log line of a call says beside its method and status.
type trace struct {
	requestID  string
	route      string
	credential string
	namespace  string
	err        error
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
		r = r.WithContext(context.WithValue(r.Context(), traceKey{}, t))
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
			s.metrics.CallEnds(metrics.Call{Method: r.Method, Route: t.route, Status: out.status, Code: failure(t, out), Took: took})
			if aborted != nil {
				panic(aborted) // net/http ends the connection, so that nobody takes what came for the whole
			}
		}()
		next.ServeHTTP(out, r)
	})
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
