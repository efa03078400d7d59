package metrics

import "github.com/prometheus/client_golang/prometheus"

// Spans are the counters of spans.
type Spans struct{ ended, sent, failed prometheus.Counter }

// Spans counts those of traces, as tracing.Count; it is called once, and where there are traces.
func (m *Metrics) Spans() Spans {
	one := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	s := Spans{
		ended:  one("outpost_trace_spans_total", "Spans that were recorded. Those neither sent nor failed wait, or found the queue full and were dropped."),
		sent:   one("outpost_trace_spans_sent_total", "Spans that the collector took."),
		failed: one("outpost_trace_spans_failed_total", "Spans that the collector did not take."),
	}
	m.registry.MustRegister(s.ended, s.sent, s.failed)
	return s
}

// SpansEnded counts spans that were recorded.
func (s Spans) SpansEnded(n int) { s.ended.Add(float64(n)) }

// SpansSent counts spans that the collector took.
func (s Spans) SpansSent(n int) { s.sent.Add(float64(n)) }

// SpansFailed counts spans that it did not take.
func (s Spans) SpansFailed(n int) { s.failed.Add(float64(n)) }
