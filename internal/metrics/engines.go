package metrics

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outpost.run/outpost/sandbox"
)

// MachineStarts are those of one engine.
type MachineStarts struct {
	inFlight prometheus.Gauge
	ended    *prometheus.CounterVec
	took     prometheus.Observer
}

// Starts counts the machines that an engine makes.
func (m *Metrics) Starts(engine string) MachineStarts {
	of := prometheus.Labels{"engine": engine}
	return MachineStarts{m.machines.inFlight.With(of), m.machines.ended.MustCurryWith(of), m.machines.took.With(of)}
}

// MachineStarts counts a machine that an engine makes, as node.Watcher.
func (m *Metrics) MachineStarts(engine string) (end func(error)) { return m.Starts(engine).Begin() }

// Begin counts a start until it is told how that ended.
func (s MachineStarts) Begin() (end func(error)) {
	s.inFlight.Inc()
	began := time.Now()
	return func(err error) {
		s.inFlight.Dec()
		if err == nil {
			s.took.Observe(time.Since(began).Seconds())
		}
		s.ended.WithLabelValues(startCode(err)).Inc()
	}
}

// startCode is ok, the code of the error, or cancelled where nobody wanted the machine any more, which is no failure.
func startCode(err error) string {
	if errors.Is(err, context.Canceled) {
		return "cancelled"
	}
	return cmp.Or(string(sandbox.CodeOf(err)), "ok")
}

func newPlaced() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "outpost_engine_execs_in_flight", Help: "Execs that have their place in a machine, by engine; outpost_execs_in_flight has those that wait, too.",
	}, []string{"engine"})
}

// ExecPlaced counts an exec that has its place in a machine of that engine, until end is called.
func (m *Metrics) ExecPlaced(engine string) (end func()) {
	g := m.placed.WithLabelValues(engine)
	g.Inc()
	return g.Dec
}

// living reads how many machines there are when it is asked for.
type living struct {
	read func() map[string]int
	desc *prometheus.Desc
}

// WatchMachines adds the gauge of living machines by engine, read at each scrape; it is called once.
func (m *Metrics) WatchMachines(read func() map[string]int) {
	m.registry.MustRegister(living{read, prometheus.NewDesc("outpost_machines",
		"Machines that live, by engine: of sandboxes, of execs, of the pool.", []string{"engine"}, nil)})
}

// Describe implements prometheus.Collector.
func (l living) Describe(out chan<- *prometheus.Desc) { out <- l.desc }

// Collect implements prometheus.Collector.
func (l living) Collect(out chan<- prometheus.Metric) {
	for engine, n := range l.read() {
		out <- prometheus.MustNewConstMetric(l.desc, prometheus.GaugeValue, float64(n), engine)
	}
}
