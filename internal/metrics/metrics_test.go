package metrics_test

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/pool"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// scrape gives what a scraper gets that asks for that form.
func scrape(t *testing.T, m *metrics.Metrics, form string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", form)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w
}

// series are all values by name and labels.
func series(t *testing.T, m *metrics.Metrics) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(scrape(t, m, "").Body.String()) {
		line = strings.TrimSpace(line)
		if at := strings.LastIndexByte(line, ' '); !strings.HasPrefix(line, "#") {
			v, err := strconv.ParseFloat(line[at+1:], 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all[line[:at]] = v
		}
	}
	return all
}

// busy has a value of every instrument.
func busy() *metrics.Metrics {
	m := metrics.New()
	m.WatchLoad(func() service.Load {
		return service.Load{Sandboxes: map[service.Kind]int{{Mode: sandbox.Stateful, Status: sandbox.Running}: 3}, Execs: 2, Jobs: map[sandbox.JobStatus]int{sandbox.JobQueued: 8, sandbox.JobRunning: 0}}
	})
	m.WatchPool(func() pool.State {
		return pool.State{Idle: 1, Making: 2, Keys: 3, Bytes: 4 << 20, Hits: 5, Misses: 6, Discarded: 7}
	})
	for _, c := range []metrics.Call{
		{Method: "POST", Route: "/x/{id}", Status: 201, Took: 3 * time.Millisecond}, {Method: "POST", Route: "/x/{id}", Status: 503, Code: sandbox.Capacity},
		{Method: "BREW", Status: 405, Code: sandbox.MethodNotAllowed}, {Method: "GET", Route: "/x/{id}"},
	} {
		m.CallBegins()
		if c.Route != "" {
			m.CallRouted(c.Method, c.Route)
		}
		m.CallEnds(c)
	}
	m.CallBegins()
	m.ExecEnds("python", service.ExecOutcome{Start: "cold", Reason: sandbox.Exited, DurationMS: 111, Timings: sandbox.Timings{QueueMS: 1, PrepareMS: 10, RunMS: 100}}, nil)
	m.ExecEnds("node", service.ExecOutcome{Start: "warm", Reason: sandbox.TimedOut, DurationMS: 1010, Timings: sandbox.Timings{PrepareMS: 10, DepsMS: 900, RunMS: 100}}, nil)
	m.ExecEnds("node", service.ExecOutcome{Start: "cold", Reason: sandbox.Cancelled, DurationMS: 5}, nil)
	m.ExecEnds("node", service.ExecOutcome{Isolation: sandbox.Isolation{Engine: "microvm"}}, sandbox.Errorf(sandbox.Lost, nil, "gone"))
	m.JobEnds(sandbox.JobFailed)
	m.CallbackEnds(false)
	m.MachinePhase("microvm", "connect", 2*time.Millisecond)
	m.Phases("container")("disk", 2*time.Millisecond)
	m.Starts("container").Begin()(nil)
	m.Starts("microvm").Begin()(sandbox.Errorf(sandbox.Capacity, nil, "full"))
	m.Starts("microvm").Begin()
	m.Starts("microvm").Begin()(fmt.Errorf("waiting: %w", context.Canceled))
	m.CallRouted("POST", "/x/{id}")
	m.WatchMachines(func() map[string]int { return map[string]int{"container": 4, "microvm": 0} })
	m.ExecPlaced("container")()
	m.ExecPlaced("container")
	m.WatchAudit()
	m.AuditLine(nil)
	spans := m.Spans()
	spans.SpansEnded(3)
	spans.SpansSent(2)
	return m
}

func TestPrometheusHasNothingToSayOnTheForm(t *testing.T) {
	problems, err := promlint.New(scrape(t, busy(), "").Body).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestWhatIsToldIsCounted(t *testing.T) {
	got := series(t, busy())
	for name, want := range map[string]float64{
		`outpost_http_requests_total{method="POST",route="/x/{id}",status="2xx"}`:                        1,
		`outpost_http_requests_total{method="POST",route="/x/{id}",status="5xx"}`:                        1,
		`outpost_http_requests_total{method="other",route="none",status="4xx"}`:                          1,
		`outpost_http_requests_total{method="GET",route="/x/{id}",status="none"}`:                        1,
		`outpost_http_errors_total{code="capacity",method="POST",route="/x/{id}"}`:                       1,
		`outpost_http_errors_total{code="method_not_allowed",method="other",route="none"}`:               1,
		`outpost_http_request_duration_seconds_count{method="POST",route="/x/{id}"}`:                     2,
		`outpost_http_requests_in_flight`:                                                                1,
		`outpost_execs_total{engine="none",language="python",start="cold",termination_reason="exited"}`:  1,
		`outpost_execs_total{engine="none",language="node",start="warm",termination_reason="timed_out"}`: 1,
		`outpost_execs_total{engine="none",language="node",start="cold",termination_reason="cancelled"}`: 1,
		`outpost_exec_failures_total{code="lost",engine="microvm"}`:                                      1,
		`outpost_machine_phase_seconds_count{engine="microvm",phase="connect"}`:                          1,
		`outpost_exec_duration_seconds_sum{engine="none",language="node",start="cold"}`:                  0.005,
		`outpost_exec_phase_seconds_sum{language="python",phase="queue",start="cold"}`:                   0.001,
		`outpost_exec_phase_seconds_sum{language="python",phase="prepare",start="cold"}`:                 0.01,
		`outpost_exec_phase_seconds_sum{language="python",phase="run",start="cold"}`:                     0.1,
		`outpost_exec_phase_seconds_sum{language="node",phase="deps",start="warm"}`:                      0.9,
		`outpost_exec_phase_seconds_bucket{language="node",phase="prepare",start="warm",le="0.0064"}`:    0,
		`outpost_exec_phase_seconds_bucket{language="node",phase="prepare",start="warm",le="0.0128"}`:    1,
		`outpost_machine_phase_seconds_bucket{engine="container",phase="disk",le="0.0001"}`:              0,
		`outpost_machine_phase_seconds_bucket{engine="container",phase="disk",le="104.8576"}`:            1,
		`outpost_sandboxes{mode="stateful",status="running"}`:                                            3,
		`outpost_sandboxes{mode="ephemeral",status="running"}`:                                           0,
		`outpost_machine_starts_total{code="ok",engine="container"}`:                                     1,
		`outpost_machine_starts_total{code="capacity",engine="microvm"}`:                                 1,
		`outpost_machine_starts_in_flight{engine="microvm"}`:                                             1,
		`outpost_machine_start_seconds_count{engine="container"}`:                                        1,
		`outpost_http_route_requests_in_flight{method="POST",route="/x/{id}"}`:                           1,
		`outpost_http_route_requests_in_flight{method="GET",route="/x/{id}"}`:                            0,
		`outpost_machine_starts_total{code="cancelled",engine="microvm"}`:                                1,
		`outpost_machines{engine="container"}`:                                                           4,
		`outpost_machines{engine="microvm"}`:                                                             0,
		`outpost_engine_execs_in_flight{engine="container"}`:                                             1,
		`outpost_audit_lines_total{outcome="written"}`:                                                   1,
		`outpost_audit_lines_total{outcome="failed"}`:                                                    0,
		`outpost_trace_spans_total`:                                                                      3,
		`outpost_trace_spans_sent_total`:                                                                 2,
		`outpost_trace_spans_failed_total`:                                                               0,
		`outpost_jobs_ended_total{status="failed"}`:                                                      1, `outpost_job_callbacks_total{outcome="failed"}`: 1,
		`outpost_jobs{status="queued"}`: 8, `outpost_jobs{status="running"}`: 0,
		`outpost_execs_in_flight`:      2,
		`outpost_pool_idle_machines`:   1,
		`outpost_pool_making_machines`: 2,
		`outpost_pool_keys`:            3,
		`outpost_pool_memory_bytes`:    4 << 20,
		`outpost_pool_hits_total`:      5,
		`outpost_pool_misses_total`:    6,
		`outpost_pool_discarded_total`: 7,
	} {
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s: %v (there: %v), want %v", name, v, there, want)
		}
	}
	for name := range got {
		if strings.Contains(name, "BREW") {
			t.Errorf("a client's word is a label: %s", name)
		}
		if strings.HasPrefix(name, "outpost_exec_phase") && strings.Contains(name, `language="node"`) && strings.Contains(name, `start="cold"`) {
			t.Errorf("an exec whose program never began has phases: %s", name)
		}
		if strings.Contains(name, `phase="deps"`) && strings.Contains(name, "python") {
			t.Errorf("an exec without deps has their phase: %s", name)
		}
	}
	if got["process_open_fds"] == 0 || got["go_goroutines"] == 0 {
		t.Error("the process and Go's runtime are missing")
	}
}

func TestWithoutAPoolNothingIsSaidOfIt(t *testing.T) {
	for name := range series(t, metrics.New()) {
		if strings.HasPrefix(name, "outpost_pool") {
			t.Error(name)
		}
	}
}

// TestNativeHistogramsAreThereToo: they travel as protocol buffers alone.
func TestNativeHistogramsAreThereToo(t *testing.T) {
	w := scrape(t, busy(), "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	d := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
	for {
		var f dto.MetricFamily
		if err := d.Decode(&f); err == io.EOF {
			t.Fatal("there is no outpost_machine_phase_seconds")
		} else if err != nil {
			t.Fatal(err)
		}
		if f.GetName() != "outpost_machine_phase_seconds" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) != 21 {
			t.Errorf("native: %v, classic: %d buckets", h.GetPositiveSpan(), len(h.GetBucket()))
		}
		return
	}
}
