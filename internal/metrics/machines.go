package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outpost.run/outpost/internal/pool"
)

// machines are the starts of all engines.
type machines struct {
	inFlight *prometheus.GaugeVec
	ended    *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

func newMachines() machines {
	return machines{
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "outpost_machine_starts_in_flight", Help: "Machines that an engine is making."}, []string{"engine"}),
		ended:    counter("outpost_machine_starts_total", "Machines that an engine made (ok) or could not make, by the code of the error; cancelled: nobody wanted it any more.", "engine", "code"),
		took:     histogram("outpost_machine_start_seconds", "Time to make a machine, of those that could be made.", "engine"),
	}
}

func newPhases() *prometheus.HistogramVec {
	return histogram("outpost_machine_phase_seconds",
		"Time of each step of making a machine that succeeded, those made ahead and those that install dependencies included, by engine; "+
			"connect is the way to the network, stop the machine's removal. Their sum is what a machine costs.", "engine", "phase")
}

// Phases is told of the phases of an engine's machines. The words of phase are the engine's and the node's.
func (m *Metrics) Phases(engine string) func(phase string, took time.Duration) {
	of := m.phases.MustCurryWith(prometheus.Labels{"engine": engine})
	return func(phase string, took time.Duration) { of.WithLabelValues(phase).Observe(took.Seconds()) }
}

// MachinePhase counts a phase of a machine's making, as node.Watcher.
func (m *Metrics) MachinePhase(engine, phase string, took time.Duration) {
	m.Phases(engine)(phase, took)
}

// poolRows reads the state when it is asked for, all numbers at once.
type poolRows struct {
	read func() pool.State
	rows []poolRow
}

type poolRow struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(pool.State) float64
}

// WatchPool adds the pool's state, read at each scrape; it is called once, and not where there is no pool: a 0 would be said of
// something that isn't there.
func (m *Metrics) WatchPool(read func() pool.State) {
	row := func(name, help string, kind prometheus.ValueType, value func(pool.State) float64) poolRow {
		return poolRow{prometheus.NewDesc("outpost_pool_"+name, help, nil, nil), kind, value}
	}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	m.registry.MustRegister(poolRows{read, []poolRow{
		row("idle_machines", "Machines made ahead that wait for a lease.", gauge, func(s pool.State) float64 { return float64(s.Idle) }),
		row("making_machines", "Machines that are being made for the pool.", gauge, func(s pool.State) float64 { return float64(s.Making) }),
		row("keys", "Kinds of machines that the pool has or makes.", gauge, func(s pool.State) float64 { return float64(s.Keys) }),
		row("memory_bytes", "Memory of the host that the idle machines take.", gauge, func(s pool.State) float64 { return float64(s.Bytes) }),
		row("hits_total", "Asks for a kind of machine, or for a blank, that found one in the pool.", counter, func(s pool.State) float64 { return float64(s.Hits) }),
		row("misses_total", "Asks that found none. One exec asks for up to three kinds: with its interpreter running, without, and a blank.", counter, func(s pool.State) float64 { return float64(s.Misses) }),
		row("discarded_total", "Machines of the pool that were removed without a lease.", counter, func(s pool.State) float64 { return float64(s.Discarded) }),
	}})
}

// Describe implements prometheus.Collector.
func (p poolRows) Describe(out chan<- *prometheus.Desc) {
	for _, r := range p.rows {
		out <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (p poolRows) Collect(out chan<- prometheus.Metric) {
	now := p.read()
	for _, r := range p.rows {
		out <- prometheus.MustNewConstMetric(r.desc, r.kind, r.value(now))
	}
}
