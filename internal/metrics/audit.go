package metrics

import "github.com/prometheus/client_golang/prometheus"

func newAudit() *prometheus.CounterVec {
	return counter("outpost_audit_lines_total", "Lines for the audit log, by outcome: written, or failed, which are missing there.", "outcome")
}

// AuditLine counts a line for the audit log, as audit.Open wants it.
func (m *Metrics) AuditLine(err error) {
	outcome := "written"
	if err != nil {
		outcome = "failed"
	}
	m.audit.WithLabelValues(outcome).Inc()
}

// WatchAudit lets the lines be seen before there are any; it is called where there is an audit log.
func (m *Metrics) WatchAudit() {
	for _, outcome := range []string{"written", "failed"} {
		m.audit.WithLabelValues(outcome)
	}
}
