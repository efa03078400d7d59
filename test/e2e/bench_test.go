package e2e_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// benchRow is what scripts read of a row of `outpost bench --json`.
type benchRow struct {
	Group, What, Language, Pace string
	Runs, Failures              int64
	P50                         float64                     `json:"p50_ms"`
	Max                         float64                     `json:"max_ms"`
	ClientCPU                   float64                     `json:"client_cpu_ms"`
	WarmShare                   *float64                    `json:"warm_share"`
	OverBare                    *struct{ P50, P99 float64 } `json:"over_bare"`
	Figure                      *struct {
		Unit     string
		Value    float64
		OverBare *float64 `json:"over_bare"`
	}
	Targets []struct {
		What  string
		Bound float64
		Is    float64
		Met   bool
	}
}

// bench runs `outpost bench --json` and gives its rows by what they measure.
func bench(t *testing.T, s *server, args ...string) map[string]benchRow {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"bench", "--json", "--runs", "3", "--seconds", "1", "--machines", "3"}, args...)...)
	cmd.Env = append(os.Environ(), "OUTPOST_DATA_DIR="+s.dir, "OUTPOST_TOKEN="+adminToken)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	var report struct {
		Version string
		Host    struct {
			Kernel, Cgroups string
			CPUs            int
		}
		Images map[string]string
		Rows   []benchRow
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if report.Host.Kernel == "" || report.Host.CPUs < 1 || report.Host.Cgroups == "" || report.Version == "" || report.Images["python"] == "" {
		t.Errorf("it does not say where it measured: %+v", report)
	}
	rows := map[string]benchRow{}
	for _, r := range report.Rows {
		rows[r.Group+": "+r.What+", "+r.Language+", "+r.Pace] = r
	}
	return rows
}

// sane says what no honest measure can be.
func (r benchRow) sane(t *testing.T, name string, compared bool) {
	t.Helper()
	if r.Runs < 1 || r.Failures != 0 || r.P50 <= 0 || r.Max < r.P50 || r.ClientCPU <= 0 || r.ClientCPU > 1000 {
		t.Errorf("%s: %+v", name, r)
	}
	if compared != (r.OverBare != nil) || compared && (r.OverBare.P50 <= 0 || r.OverBare.P99 <= 0) {
		t.Errorf("%s over bare: %+v", name, r.OverBare)
	}
	if compared && len(r.Targets) == 0 {
		t.Errorf("%s has no target", name)
	}
}

func TestBenchMeasuresBesideBare(t *testing.T) {
	leakCheck(t, shared)
	rows := bench(t, shared, "--only", "exec,create,cpu,density")
	for name, compared := range map[string]bool{
		"exec: bare, python, busy": false, "exec: exec, python, busy": true, "exec: exec, python, one each 200 ms": true,
		"exec: bare, node, one each 200 ms": false, "exec: exec, node, busy": true, "create: create, python, busy": true,
		"create: create + exec, one call, python, one each 200 ms": true, "create: create + exec, two calls, python, busy": true,
	} {
		rows[name].sane(t, name, compared)
	}
	if r := rows["exec: exec, python, busy"]; r.Runs != 3 || r.WarmShare == nil {
		t.Errorf("3 runs were asked for, and how many were warm: %+v", r)
	}
	// A machine's own processes use something, and so does one that lives.
	for name, least := range map[string]float64{"cpu: create + exec, one call, python, busy": 0.1, "density: stateful sandboxes made, python, 4 clients": 0.1} {
		if r := rows[name]; r.Figure == nil || r.Figure.Value < least || r.Figure.Value > 1000 || len(r.Targets) == 0 {
			t.Errorf("%s: %+v", name, r.Figure)
		}
	}
}

func TestBenchStartsServersOfItsOwn(t *testing.T) {
	onThisHost(t)
	dir, err := os.MkdirTemp(work, "bench-")
	if err != nil {
		t.Fatal(err)
	}
	if err := linkImages(filepath.Join(dir, "images")); err != nil {
		t.Fatal(err)
	}
	own := &server{dir: dir}
	t.Cleanup(func() { own.discard(t) })
	rows := bench(t, own, "--server-dir", dir, "--only", "open,cold,burst")
	rows["cold: create + exec, pool empty, python, busy"].sane(t, "cold", true)
	for name, least := range map[string]float64{"open: bare, python, 8 clients": 1, "open: create + exec, one call, python, 8 clients": 1, "burst: create + exec, one call, python, 100 at once": 100} {
		if r := rows[name]; r.Figure == nil || r.Figure.Value < least || r.Failures > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	open := slices.DeleteFunc(slices.Collect(maps.Keys(rows)), func(name string) bool { return !strings.Contains(name, ", open at ") })
	if len(open) != 1 || rows[open[0]].Runs < 1 || rows[open[0]].Failures > 0 {
		t.Errorf("rows of an open loop: %v, want a good one", open)
	}
	if out, err := own.leaks(); err != nil {
		t.Errorf("leaks: %v\n%s", err, out)
	}
}
