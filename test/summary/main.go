// Summary reads the events of `go test -json` and shows what a person wants: one line a package, the output of what
// failed, and at the end each skipped test with its reason and the sum. It exits 1 if anything failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
	if !s.end() {
		os.Exit(1)
	}
}

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of the events of a build
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

type summary struct {
	out                     io.Writer
	passed, failed, skipped int
	broken                  int // packages that failed without a failing test: no build, a panic, a time-out
	output                  map[string][]string
	failedIn                map[string]bool
	skips                   []string
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[string][]string{}, failedIn: map[string]bool{}}
}

func (s *summary) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(s.out, "%s", line) // what go itself says
			} else {
				s.event(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) event(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if e.Action == "build-output" {
			key = "build " + e.ImportPath
		}
		s.output[key] = append(s.output[key], e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			s.packageEnded(e, key)
		} else {
			s.testEnded(e, key)
		}
		delete(s.output, key)
	}
}

func (s *summary) testEnded(e event, key string) {
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		s.failedIn[e.Package] = true
		fmt.Fprintf(s.out, "\nFAIL %s %s\n%s\n", e.Package, e.Test, strings.Join(s.output[key], ""))
	case "skip":
		s.skipped++
		s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(s.output[key])))
	}
}

func (s *summary) packageEnded(e event, key string) {
	switch {
	case e.Action == "skip": // a package without tests
	case e.Action == "fail" && !s.failedIn[e.Package]:
		s.broken++
		fmt.Fprintf(s.out, "\nFAIL %s\n%s%s\n", e.Package, strings.Join(s.output["build "+e.FailedBuild], ""), s.untold(e.Package))
	default:
		fmt.Fprintf(s.out, "%-4s %6.1f s  %s\n", e.Action, e.Elapsed, e.Package)
	}
}

// untold is what a package said outside of tests that have ended: go takes it for the last test's.
func (s *summary) untold(pkg string) string {
	var said strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s.output)) {
		if strings.HasPrefix(key, pkg+" ") {
			said.WriteString(strings.Join(s.output[key], ""))
			delete(s.output, key)
		}
	}
	return said.String()
}

// reason is what a test said when it skipped itself: its last line that go did not write, less file and line.
func reason(output []string) string {
	why := "no reason given"
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, after, ok := strings.Cut(line, ": "); ok && strings.Contains(line, ".go:") {
			line = after
		}
		why = line
	}
	return why
}

// end prints the skips and the sum; false says that something failed.
func (s *summary) end() bool {
	if len(s.skips) > 0 {
		fmt.Fprintln(s.out, "\nskipped:")
	}
	for _, line := range s.skips {
		fmt.Fprintln(s.out, "  "+line)
	}
	if s.broken > 0 {
		fmt.Fprintf(s.out, "%d packages failed outside their tests\n", s.broken)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed+s.broken, s.skipped)
	return s.failed+s.broken == 0
}
