package e2e_test

import (
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"outpost.run/outpost/sandbox"
)

// ask makes a call as an operator, with headers of its own.
func (s *server) ask(t *testing.T, method, path string, headers http.Header, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.Address()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, headers)
	r.Header.Set("Authorization", "Bearer "+adminToken)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// metrics reads /metrics as an operator.
func (s *server) metrics(t *testing.T) string {
	t.Helper()
	a := s.ask(t, http.MethodGet, "/metrics", nil, "")
	defer a.Body.Close() //nolint:errcheck // read whole below
	text, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %d %s, %v", a.StatusCode, text, err)
	}
	return string(text)
}

// measured are the values of /metrics by name and labels.
func (s *server) measured(t *testing.T) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(s.metrics(t)) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[line[:at]] = v
	}
	return all
}

// machinePhases are those of an ephemeral machine's whole life.
var machinePhases = []string{"claim", "groups", "disk", "agent", "furnish", "park", "settle", "connect", "stop"}

// TestMetricsGrowByWhatWasDone has a server of its own: nobody else's execs are in its figures.
func TestMetricsGrowByWhatWasDone(t *testing.T) {
	s := newServer(t)
	if a, err := http.Get(s.Address() + "/metrics"); err != nil || a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a credential: %v, %v", a, err)
	} else {
		a.Body.Close()
	}
	before := s.measured(t)
	box := s.box(t, sandbox.CreateRequest{})
	result := s.python(t, box.ID, "print(1)")
	clean(t, result)
	if err := s.Delete(t.Context(), box.ID); err != nil {
		t.Fatal(err)
	}
	const route = `{method="POST",route="/auth/v1/seed/{namespace}/sandbox/{id}/exec"`
	start := `start="` + result.Start + `"`
	byOne := []string{
		`outpost_execs_total{engine="container",language="python",` + start + `,termination_reason="exited"}`,
		`outpost_exec_duration_seconds_count{engine="container",language="python",` + start + `}`,
		`outpost_http_requests_total` + route + `,status="2xx"}`, `outpost_http_request_duration_seconds_count` + route + `}`,
	}
	for _, phase := range []string{"queue", "prepare", "run"} {
		byOne = append(byOne, `outpost_exec_phase_seconds_count{language="python",phase="`+phase+`",`+start+`}`)
	}
	after := before
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // a call is counted after its answer, and a machine removed beside it
		after = s.measured(t)
		wrong := ""
		for _, name := range byOne {
			if by := after[name] - before[name]; by != 1 {
				wrong += fmt.Sprintf("%s grew by %v, want 1\n", name, by)
			}
		}
		for _, phase := range machinePhases { // there may be more machines, made ahead
			if name := `outpost_machine_phase_seconds_count{engine="container",phase="` + phase + `"}`; after[name] < 1 {
				wrong += fmt.Sprintf("%s is %v\n", name, after[name])
			}
		}
		if wrong == "" {
			break
		}
		if time.Now().After(end) {
			t.Fatal(wrong)
		}
	}
	if v, there := after[`outpost_sandboxes{mode="ephemeral",status="running"}`]; v != 0 || !there {
		t.Errorf("%v sandboxes after the last was deleted", v)
	}
	for name, least := range map[string]float64{
		`outpost_machine_starts_total{code="ok",engine="container"}`: 1, `outpost_machine_starts_in_flight{engine="container"}`: 0, `outpost_machine_start_seconds_count{engine="container"}`: 1, `outpost_machines{engine="container"}`: 0,
		`outpost_engine_execs_in_flight{engine="container"}`: 0, `outpost_http_route_requests_in_flight` + route + `}`: 0,
	} {
		if v, there := after[name]; v < least || !there {
			t.Errorf("%s is %v (there: %v), want at least %v", name, v, there, least)
		}
	}
	inMS := 1000 * after[`outpost_exec_duration_seconds_sum{engine="container",language="python",`+start+`}`]
	if math.Abs(inMS-result.DurationMS) > 0.001 {
		t.Errorf("the exec took %v ms by /metrics, %v ms by its answer", inMS, result.DurationMS)
	}
	text := s.metrics(t)
	if problems, err := promlint.New(strings.NewReader(text)).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("what Prometheus would say of it: %v, %v", problems, err)
	}
	if strings.Contains(text, box.ID) {
		t.Error("a sandbox's id is told")
	}
}

// TestMachinesAreCountedWhileTheyLive has no pool: then a machine is a sandbox's.
func TestMachinesAreCountedWhileTheyLive(t *testing.T) {
	s := newServer(t, "--pool-max-idle", "0")
	leakCheck(t, s)
	are := func(machines, execs float64) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			now := s.measured(t)
			m, x := now[`outpost_machines{engine="container"}`], now[`outpost_engine_execs_in_flight{engine="container"}`]
			if m == machines && x == execs {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%v machines and %v execs in them, want %v and %v", m, x, machines, execs)
			}
		}
	}
	are(0, 0)
	one, two := s.box(t, sandbox.CreateRequest{Mode: new("stateful")}), s.box(t, sandbox.CreateRequest{Mode: new("stateful")})
	are(2, 0)
	if _, err := s.Background(t.Context(), two.ID, sandbox.ExecRequest{Command: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	are(2, 1)
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	are(2, 1) // those that were found again
	if _, err := s.Stop(t.Context(), one.ID); err != nil {
		t.Fatal(err)
	}
	are(1, 1)
	killMachines(t, s)
	are(0, 0)
	if n := s.measured(t)[`outpost_exec_failures_total{code="lost",engine="container"}`]; n != 1 {
		t.Errorf("%v execs failed since their machine was lost, want 1", n)
	}
	if err := s.Delete(t.Context(), two.ID); err != nil {
		t.Fatal(err)
	}
	are(0, 0)
}
