package metrics

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

type execs struct {
	ended  *prometheus.CounterVec
	failed *prometheus.CounterVec
	took   *prometheus.HistogramVec
	phase  *prometheus.HistogramVec
}

func newExecs() execs {
	return execs{
		ended: counter("outpost_execs_total",
			"Execs that ended with a result, by engine, language, start (warm or cold) and termination_reason of the result.", "engine", "language", "start", "termination_reason"),
		failed: counter("outpost_exec_failures_total",
			"Execs that were taken up and ended without a result, by engine (none: no machine was there) and the code of the error.", "engine", "code"),
		took: histogram("outpost_exec_duration_seconds", "duration_ms of execs' results: from the acceptance to the end, without the machine that execute makes first.", "engine", "language", "start"),
		phase: histogram("outpost_exec_phase_seconds",
			"Parts of that time, timings of the result: queue (for its turn), deps (where it has some), prepare (machine and files), run (the program). "+
				"Execs whose program never began are left out.", "phase", "language", "start"),
	}
}

func (e execs) all() []prometheus.Collector {
	return []prometheus.Collector{e.ended, e.failed, e.took, e.phase}
}

// ExecEnds counts an exec in that language, as service.Config.Ended.
func (m *Metrics) ExecEnds(language string, o service.ExecOutcome, err error) {
	if err != nil {
		m.execs.failed.WithLabelValues(engineOf(o), string(sandbox.CodeOf(err))).Inc()
		return
	}
	m.execs.ended.WithLabelValues(engineOf(o), language, o.Start, string(o.Reason)).Inc()
	m.execs.took.WithLabelValues(engineOf(o), language, o.Start).Observe(o.DurationMS / 1000)
	t := o.Timings
	if t.PrepareMS == 0 && t.RunMS == 0 {
		return // its client went away before anything ran: zeros would pull the quantiles down
	}
	observe := func(phase string, ms float64) {
		m.execs.phase.WithLabelValues(phase, language, o.Start).Observe(ms / 1000)
	}
	observe("queue", t.QueueMS)
	observe("prepare", t.PrepareMS)
	observe("run", t.RunMS)
	if t.DepsMS > 0 {
		observe("deps", t.DepsMS)
	}
}

// engineOf is none where no machine was there before the exec ended.
func engineOf(o service.ExecOutcome) string { return cmp.Or(o.Isolation.Engine, "none") }

// load reads what there is when it is asked for.
type load struct {
	read                   func() service.Load
	sandboxes, execs, jobs *prometheus.Desc
}

// WatchLoad adds the gauges of sandboxes, execs and jobs, read at each scrape; it is called once.
func (m *Metrics) WatchLoad(read func() service.Load) {
	m.registry.MustRegister(load{
		read:      read,
		sandboxes: prometheus.NewDesc("outpost_sandboxes", "Sandboxes of all namespaces, by mode and status.", []string{"mode", "status"}, nil),
		jobs:      prometheus.NewDesc("outpost_jobs", "Jobs of all namespaces that have not ended, by status: those that wait, for their turn or their next attempt, and those that run.", []string{"status"}, nil),
		execs: prometheus.NewDesc("outpost_execs_in_flight",
			"Execs that count in the quotas of their namespaces: those that wait, those that run, and those of execute whose machine is not gone yet.", nil, nil),
	})
}

// Describe implements prometheus.Collector.
func (l load) Describe(out chan<- *prometheus.Desc) {
	out <- l.sandboxes
	out <- l.execs
	out <- l.jobs
}

// Collect implements prometheus.Collector.
func (l load) Collect(out chan<- prometheus.Metric) {
	now := l.read()
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(l.execs, now.Execs)
	for status, n := range now.Jobs {
		gauge(l.jobs, n, string(status))
	}
	for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful} {
		for _, status := range []sandbox.Status{sandbox.Running, sandbox.Stopped, sandbox.Failed, sandbox.LostNow} { // a series that is 0 is drawn, one that is missing is not
			gauge(l.sandboxes, now.Sandboxes[service.Kind{Mode: mode, Status: status}], string(mode), string(status))
		}
	}
}
