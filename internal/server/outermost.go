package server

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/sandbox"
)

func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		s.metrics.CallBegins()
		t := &trace{requestID: sandbox.NewID(sandbox.RequestPrefix), client: r.RemoteAddr}
		r, span := s.span(r)
		if span != nil && span.IsRecording() {
			t.traceID = span.SpanContext().TraceID().String()
		}
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
			cut := aborted == http.ErrAbortHandler
			if aborted != nil && !cut {
				s.panicked(r, aborted)
				if out.status == 0 {
					s.fail(out, r, failed())
				}
				aborted = nil
			}
			took := time.Since(began)
			refused := out.status >= http.StatusBadRequest                                           // perhaps before the whole body came: the connection ends then, too
			if r.Context().Err() != nil && !refused && out.status != http.StatusSwitchingProtocols { // that of a connection that was taken over ends at once
				t.leaves()
			}
			t.ends(out.status, took, cut)
			s.logCall(r, t)
			s.auditCall(t)
			endSpan(span, r, t)
			s.metrics.CallEnds(metrics.Call{Method: r.Method, Route: t.route, Status: t.status, Code: t.code(), Took: took})
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

func (s *Server) logCall(r *http.Request, t *trace) {
	level, attributes := slog.LevelInfo, []slog.Attr{
		slog.String("request_id", t.requestID), slog.String("method", r.Method), slog.String("route", t.route),
		slog.Int("status", t.status), slog.Float64("duration_ms", float64(t.took.Microseconds())/1000),
	}
	if t.traceID != "" {
		attributes = append(attributes, slog.String("trace_id", t.traceID))
	}
	if t.caller.ID != "" {
		attributes = append(attributes, slog.String("credential", t.caller.ID), slog.String("namespace", t.namespace))
	}
	for _, o := range t.objects {
		if strings.HasSuffix(o[0], "_id") {
			attributes = append(attributes, slog.String(o[0], o[1]))
		}
	}
	if t.cut {
		attributes = append(attributes, slog.Bool("cut_off", true))
	}
	if t.left {
		attributes = append(attributes, slog.Bool("client_gone", true))
	}
	if t.err != nil {
		attributes = append(attributes, slog.String("code", string(sandbox.CodeOf(t.err))))
		if t.status >= http.StatusInternalServerError || t.cut {
			level = slog.LevelWarn // busy, or an image is being made
			attributes = append(attributes, slog.Any("error", t.err))
		}
		if t.status == http.StatusInternalServerError {
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
