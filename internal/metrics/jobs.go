package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"outpost.run/outpost/sandbox"
)

type jobs struct{ ended, callbacks *prometheus.CounterVec }

func newJobs() jobs {
	return jobs{
		ended:     counter("outpost_jobs_ended_total", "Jobs that ended, by status.", "status"),
		callbacks: counter("outpost_job_callbacks_total", "Tries to tell of a job's end, by outcome: heard or failed.", "outcome"),
	}
}

// JobEnds counts a job, as jobs.Watcher.
func (m *Metrics) JobEnds(status sandbox.JobStatus) {
	m.jobs.ended.WithLabelValues(string(status)).Inc()
}

// CallbackEnds counts a try to tell of a job's end, as jobs.Watcher.
func (m *Metrics) CallbackEnds(heard bool) {
	outcome := "failed"
	if heard {
		outcome = "heard"
	}
	m.jobs.callbacks.WithLabelValues(outcome).Inc()
}
