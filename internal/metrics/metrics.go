// Package metrics keeps what the server measures of itself, in a registry of its own, and says it as Prometheus reads it.
// A label's values come from lists of ours (routes, codes, languages, phases), never from what a client chose: else clients
// could fill the server's memory, and read each other's names.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are all instruments of one server. All methods are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	calls    calls
	execs    execs
	jobs     jobs
	phases   *prometheus.HistogramVec
	machines machines
	placed   *prometheus.GaugeVec
	audit    *prometheus.CounterVec
}

// New makes the instruments; those of load and pool come with WatchLoad and WatchPool.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), calls: newCalls(), execs: newExecs(), jobs: newJobs(), phases: newPhases(), machines: newMachines(), placed: newPlaced(), audit: newAudit()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.phases)
	m.registry.MustRegister(m.calls.all()...)
	m.registry.MustRegister(m.execs.all()...)
	m.registry.MustRegister(m.machines.inFlight, m.machines.ended, m.machines.took, m.placed, m.audit, m.jobs.ended, m.jobs.callbacks)
	return m
}

// Handler answers with everything, in the form that the scraper asks for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// buckets double from 0.1 ms, below which no step matters, to 105 s, more than a program has unless it asks for more: one scale
// for all, so that parts can be laid beside their whole. A quantile read from them may be wrong by a factor of 2, which shows
// the step that grew and costs 21 lines a series. Native histograms, for scrapers that ask for them, are there too: their
// buckets are 10 % wide, and those where nothing falls cost nothing.
var buckets = prometheus.ExponentialBuckets(0.0001, 2, 21)

func histogram(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}
