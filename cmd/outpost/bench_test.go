package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/internal/bench"
)

// benchOptions are those of a command line.
func benchOptions(t *testing.T, args ...string) (o bench.Options, err error) {
	t.Helper()
	var b benchFlags
	cmd := &cobra.Command{RunE: func(cmd *cobra.Command, _ []string) error {
		o, err = b.options(cmd)
		return err
	}, SilenceErrors: true, SilenceUsage: true}
	b.flags(cmd)
	cmd.SetArgs(append([]string{"--server-dir", t.TempDir()}, args...))
	return o, cmd.Execute()
}

func TestBenchIsToldWhatToMeasure(t *testing.T) {
	o, err := benchOptions(t)
	if err != nil || len(o.Groups) != len(bench.Groups) || o.Runs != 100 || o.Paced != 20 || o.Compiled != 20 || o.Window != 20*time.Second || o.Machines != 50 {
		t.Errorf("told nothing: %+v, %v", o, err)
	}
	o, err = benchOptions(t, "--full", "--seconds", "5", "--only", "rate,exec")
	if err != nil || !slices.Equal(o.Groups, []string{"exec", "rate"}) || o.Runs != 1000 || o.Window != 5*time.Second || o.Machines != 1000 {
		t.Errorf("--full --seconds 5: %+v, %v", o, err)
	}
	_, err = benchOptions(t, "--only", "exec,resets", "--runs", "0", "--seconds", "-1")
	for _, want := range []string{"--only resets: there is no such group", "--runs must be at least 1", "--seconds must be at least 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
}

func TestBenchsOwnServerMakesNoImageThatIsNotMeasured(t *testing.T) {
	flags := strings.Join(ownFlags([]string{"python", "node"}, 1000), " ")
	for _, want := range []string{"--images-go ", "--images-rust ", "--images-bash ", "--policy-quota-sandboxes 2000"} {
		if !strings.Contains(flags+" ", want) {
			t.Errorf("%q lacks %q", flags, want)
		}
	}
	if strings.Contains(flags, "--images-python") || strings.Contains(flags, "--images-node") {
		t.Errorf("%q leaves out what is measured", flags)
	}
}

func TestBenchPrintsColumns(t *testing.T) {
	r := bench.Report{Version: "v1", Rows: []bench.Row{
		{Group: "exec", What: "bare", Language: "python", Pace: "busy", Runs: 100, Latency: &bench.Latency{P50: 8, P90: 9, P99: 10.5, Max: 11}},
		{Group: "exec", What: "exec", Language: "python", Pace: "one each 200 ms", Runs: 20, Latency: &bench.Latency{P50: 16, P90: 17, P99: 121, Max: 1180},
			OverBare: &bench.Ratios{P50: 2, P99: 11.52}, WarmShare: new(0.25),
			Targets: []bench.Target{{What: "p50 over bare", Bound: 0.5, Is: 2}, {What: "failures", Is: 0, Met: true}}},
	}, LeftOut: []bench.LeftOut{{Group: "cold", Reason: "no server"}}}
	var out bytes.Buffer
	if err := printReport(&out, r); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	column := strings.Index(lines[2], "P99 x BARE")
	if column < 0 || !strings.HasPrefix(lines[4][column:], "11.52") {
		t.Errorf("P99 x BARE is not in its column:\n%s", out.String())
	}
	for _, want := range []string{"25 %", "p50 over bare", "at most 0.5", "missed", "met", "left out: cold: no server"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not there:\n%s", want, out.String())
		}
	}
}
