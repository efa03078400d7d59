package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/test/kernels/plan"
)

// said is what a guest says of one binary with a passed, a failed and a skipped test.
var said = []string{
	plan.Mark + plan.Kernel + " 6.1.0-test",
	plan.Mark + plan.Begin + " engine",
	"\x16=== RUN   TestA", "\x16--- PASS: TestA (0.01s)", "\x16=== NAME  ",
	"\x16=== RUN   TestB", "    b_test.go:9: it broke", "\x16--- FAIL: TestB (0.00s)", "\x16=== NAME  ",
	"\x16=== RUN   TestC", "    c_test.go:9: no such thing here", "\x16--- SKIP: TestC (0.00s)", "\x16=== NAME  ",
	"FAIL",
	plan.Mark + plan.End + " 1 engine",
}

func TestReportTellsHowEachTestEnded(t *testing.T) {
	var events, out bytes.Buffer
	r := &report{started: time.Now(), echo: io.Discard, events: &events}
	for _, line := range said {
		r.line(line)
	}
	if r.err != nil {
		t.Fatal(r.err)
	}
	all, err := results(&events)
	if err != nil {
		t.Fatal(err)
	}
	if n := list(&out, r.kernel, all); n != 1 {
		t.Errorf("list counts %d failures, want 1", n)
	}
	if want := "FAIL  engine/TestB\nSKIP  engine/TestC: c_test.go:9: no such thing here\nLinux 6.1.0-test: 1 passed, 1 failed, 1 skipped\n"; out.String() != want {
		t.Errorf("list = %q, want %q", out.String(), want)
	}
	if want := []string{"engine: exit status 1"}; !slices.Equal(r.failed, want) {
		t.Errorf("failed = %q, want %q", r.failed, want)
	}
}

func TestCompareNamesWhatDiffersFromTheHost(t *testing.T) {
	run := func(pkg string, ends ...string) (all []result) {
		for _, e := range ends {
			name, end, _ := strings.Cut(e, " ")
			all = append(all, result{Package: pkg, Test: name, Action: end})
		}
		return all
	}
	here := append(run("engine", "TestA pass", "TestB skip", "TestD pass", "TestE/1 pass", "TestE pass"), run("guest", "TestA pass")...)
	there := run("outpost.run/outpost/engine", "TestA pass", "TestB pass", "TestC pass", "TestE skip")
	want := "engine/TestB: skip here, pass on the host\nengine/TestC: not run here, pass on the host\nengine/TestD: pass here, not run on the host"
	if got := strings.Join(compare(here, there), "\n"); got != want {
		t.Errorf("compare:\n%s\nwant:\n%s", got, want)
	}
}

func TestCompareIsNotContentWithNothing(t *testing.T) {
	if got := compare([]result{{Package: "engine", Test: "TestA", Action: "pass"}}, nil); len(got) == 0 {
		t.Error("no test on the host, and nobody said so")
	}
}
