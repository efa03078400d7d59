// Package server is the HTTP side: one table of routes, authentication, rate limits, idempotency keys, errors as JSON,
// and a description of all that which is made from the same table.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	otel "go.opentelemetry.io/otel/trace"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// What a client may take its time with.
var headerTime = 10 * time.Second // shorter in a test

const (
	bodyTime       = 60 * time.Second
	answerTime     = 120 * time.Second
	idleTime       = 120 * time.Second
	maxHeaderBytes = 64 << 10
)

// Config is what a Server stands on.
type Config struct {
	Service   *service.Service
	Log       *slog.Logger
	Version   string
	PerMinute int // calls of one credential; 0 switches rate limits off
	Burst     int

	Metrics       *metrics.Metrics
	MetricsAccess string // open, operator or off

	Audit         *audit.Log // nil: there is none
	AuditRequired bool       // nothing is changed that can't be noted there first

	Tracer otel.Tracer // nil: there are no traces
}

// Server answers HTTP calls.
type Server struct {
	svc     *service.Service
	log     *slog.Logger
	version string
	limits  *limiters
	mux     *chi.Mux
	routes  []route
	openapi []byte
	docs    []byte
	streams streams
	tickets tickets
	metrics *metrics.Metrics
	ending  context.Context // streams end with it
	end     context.CancelFunc

	metricsAccess string

	audit         *audit.Log
	auditRequired bool
	strangers     strangers
	tracer        otel.Tracer
}

// New makes a Server. It fails only where the routes can't be described.
func New(c Config) (*Server, error) {
	s := &Server{svc: c.Service, log: c.Log, version: c.Version, limits: newLimiters(c.PerMinute, c.Burst), mux: chi.NewMux(), metrics: c.Metrics, metricsAccess: c.MetricsAccess, audit: c.Audit, auditRequired: c.AuditRequired, tracer: c.Tracer}
	s.ending, s.end = context.WithCancel(context.Background())
	s.routes = s.table()
	for _, r := range s.routes {
		s.mux.Method(r.method, r.path, s.handle(r))
	}
	s.mux.NotFound(s.notFound)
	s.mux.MethodNotAllowed(s.methodNotAllowed)
	return s, s.describe()
}

// Handler is the whole: every answer of it has a request id, a panic is an answer too, and each call a line in the log.
func (s *Server) Handler() http.Handler { return s.outermost(s.mux) }

// Serve answers calls on l until ctx ends; then it lets the calls under way end, at most for grace, and returns.
func (s *Server) Serve(ctx context.Context, l net.Listener, grace time.Duration) error {
	h := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.end()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := h.Shutdown(last); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return h.Close()
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, sandbox.Errorf(sandbox.NotFound, nil, "there is nothing at this path; /docs lists what there is"))
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if r.URL.RawPath == "" {
		path = r.URL.Path
	}
	var allowed []string
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		if s.mux.Match(chi.NewRouteContext(), method, path) {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		s.notFound(w, r)
		return
	}
	list := strings.Join(allowed, ", ")
	w.Header().Set("Allow", list)
	s.fail(w, r, sandbox.Errorf(sandbox.MethodNotAllowed, nil, "this path takes %s", list))
}
