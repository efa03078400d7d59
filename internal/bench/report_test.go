package bench

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

// The names are what scripts read: a change here is one of the contract.
const shape = `{"version":"v","host":{"kernel":"6.18","cpus":2,"memory_mb":24105,"cgroups":"hybrid","client_cpu":1},` +
	`"images":{"python":"deb:trixie?include=python3"},"rows":[` +
	`{"group":"exec","what":"exec","language":"python","pace":"busy","runs":100,"failures":0,` +
	`"p50_ms":50,"p90_ms":90,"p99_ms":99,"max_ms":100,"client_cpu_ms":0.5,"over_bare":{"p50":0.5,"p99":0.6},"warm_share":1,` +
	`"targets":[{"what":"p50 over bare","bound":0.5,"is":0.5,"met":true}]},` +
	`{"group":"rate","what":"exec","language":"python","pace":"8 clients","runs":0,"failures":1,"client_cpu_ms":0,` +
	`"figure":{"unit":"execs/s","value":40,"bare":80,"over_bare":0.5},` +
	`"targets":[{"what":"rate over bare","bound":0.6,"at_least":true,"is":0.5,"met":false}],"note":"n"}],` +
	`"left_out":[{"group":"cold","reason":"r"}]}`

func TestTheReportsShapeIsStable(t *testing.T) {
	exec := Row{Group: "exec", What: "exec", Language: "python", Pace: "busy", Runs: 100, Latency: &Latency{50, 90, 99, 100},
		ClientCPUMS: 0.5, OverBare: &Ratios{0.5, 0.6}, WarmShare: pointer(1.0)}
	exec.atMost("p50 over bare", 0.5, 0.5)
	rate := Row{Group: "rate", What: "exec", Language: "python", Pace: "8 clients", Failures: 1, Note: "n",
		Figure: &Figure{"execs/s", 40, pointer(80.0), pointer(0.5)}}
	rate.atLeast("rate over bare", 0.6, 0.5)
	r := Report{"v", Host{"6.18", 2, 24105, "hybrid", pointer(1)}, map[string]string{"python": "deb:trixie?include=python3"},
		[]Row{exec, rate}, []LeftOut{{"cold", "r"}}}
	got, err := json.Marshal(r)
	if err != nil || string(got) != shape {
		t.Errorf("%v\n got %s\nwant %s", err, got, shape)
	}
	var back Report
	if err := json.Unmarshal(got, &back); err != nil || back.Rows[0].Latency == nil || back.Rows[0].P90 != 90 || back.Rows[1].Latency != nil {
		t.Errorf("read back: %+v, %v", back, err)
	}
}

func TestPercentilesAreTheHistograms(t *testing.T) {
	var s Sample
	for ms := int64(100); ms > 0; ms-- {
		s.Micros = append(s.Micros, ms*1000)
	}
	l, err := s.latency()
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]float64{"p50": {l.P50, 50}, "p90": {l.P90, 90}, "p99": {l.P99, 99}, "max": {l.Max, 100}} {
		if math.Abs(pair[0]-pair[1]) > 0.002*pair[1] { // three digits
			t.Errorf("%s of 1 to 100 ms is %v", what, pair[0])
		}
	}
	if l, err := (Sample{}).latency(); l != nil || err != nil {
		t.Errorf("of nothing: %v, %v", l, err)
	}
}

func TestEachSideIsComparedLessItsOwnClient(t *testing.T) {
	ms := func(n int64) []int64 { return []int64{n * 1000} }
	bare, err := newRow("exec", "bare", "python", "busy", Sample{Micros: ms(10), OwnCPU: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	row, err := newRow("exec", "exec", "python", "busy", Sample{Micros: ms(5), OwnCPU: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	row.over(&bare)
	if got := row.OverBare.P50; math.Abs(got-4./8) > 0.002 {
		t.Errorf("(5 - 1) over (10 - 2) is %v", got)
	}
}

func TestWhatAMachineTakesIsAllThatGrew(t *testing.T) {
	const mb = 1 << 20
	before := memory{server: 30 * mb, kernel: 100 * mb, free: 1000 * mb}
	after := memory{server: 40 * mb, kernel: 160 * mb, free: 900 * mb}
	before.machines.All, before.machines.Kernel = 10*mb, 5*mb
	after.machines.All, after.machines.Kernel = 60*mb, 25*mb
	figure, _ := after.each(before, 10)
	if want := (50. + 10 + (60 - 20)) / 10; figure.Value != want {
		t.Errorf("%v MB a machine, want %v: control groups 50, server 10, kernel beside its groups 40", figure.Value, want)
	}
}

func TestEveryGroupHasPrograms(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range Groups {
		if seen[g.Name] || g.Does == "" || g.run == nil || len(g.languages) == 0 {
			t.Errorf("group %q is not whole, or there twice", g.Name)
		}
		seen[g.Name] = true
		for _, language := range g.languages {
			if code, want := hello(language); code == "" || want == "" {
				t.Errorf("%s: no program in %s", g.Name, language)
			}
			if _, ok := programs[language]; !ok {
				t.Errorf("%s: nothing bare in %s", g.Name, language)
			}
		}
	}
}
