package metrics

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outpost.run/outpost/sandbox"
)

// Call is one HTTP call that has been answered.
type Call struct {
	Method string
	Route  string // its pattern; "" where no route was found
	Status int
	Code   sandbox.Code // of its error; "" for none
	Took   time.Duration
}

type calls struct {
	inFlight prometheus.Gauge
	onRoute  *prometheus.GaugeVec
	answered *prometheus.CounterVec
	failed   *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

func newCalls() calls {
	return calls{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outpost_http_requests_in_flight", Help: "HTTP calls that are not answered yet, open streams of events included.",
		}),
		onRoute: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outpost_http_route_requests_in_flight", Help: "Those of them that have found their route, by its method and pattern.",
		}, []string{"method", "route"}),
		answered: counter("outpost_http_requests_total",
			"HTTP calls answered, by method, pattern of the route (none where there is none) and class of the status.", "method", "route", "status"),
		failed: counter("outpost_http_errors_total", "HTTP calls answered with an error, by its code.", "method", "route", "code"),
		took: histogram("outpost_http_request_duration_seconds",
			"Time from a call's headers to the end of its answer: of an exec with its program's run, of a stream of events until it closes.", "method", "route"),
	}
}

func (c calls) all() []prometheus.Collector {
	return []prometheus.Collector{c.inFlight, c.onRoute, c.answered, c.failed, c.took}
}

// CallBegins counts a call that CallEnds will tell of.
func (m *Metrics) CallBegins() { m.calls.inFlight.Inc() }

// CallRouted counts a call that has found its route, as that names it; CallEnds says the same of it.
func (m *Metrics) CallRouted(method, route string) {
	m.calls.onRoute.WithLabelValues(method, route).Inc()
}

// CallEnds counts an answered call.
func (m *Metrics) CallEnds(c Call) {
	method, route := methodOf(c.Method), c.Route
	if route == "" {
		route = "none"
	}
	m.calls.inFlight.Dec()
	if c.Route != "" {
		m.calls.onRoute.WithLabelValues(method, route).Dec()
	}
	m.calls.answered.WithLabelValues(method, route, class(c.Status)).Inc()
	m.calls.took.WithLabelValues(method, route).Observe(c.Took.Seconds())
	if c.Code != "" {
		m.calls.failed.WithLabelValues(method, route, string(c.Code)).Inc()
	}
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// methodOf bounds what a client may call a method.
func methodOf(word string) string {
	if slices.Contains(methods, word) {
		return word
	}
	return "other"
}

// class is 2xx for 204; none for a call that ended without an answer.
func class(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return strconv.Itoa(status/100) + "xx"
}
