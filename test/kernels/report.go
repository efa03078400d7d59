package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	"outpost.run/outpost/test/kernels/plan"
)

// test2jsonMark is what -test.v=test2json puts before its own lines.
const test2jsonMark = "\x16"

// report takes the guest's lines apart: those of a test go to test2json, of which come the events of `go test -json`.
type report struct {
	started time.Time
	echo    io.Writer // what people see
	events  io.Writer // the events of all tests
	binary  *test2json
	failed  []string // NAME: exit status CODE
	kernel  string
	err     error
}

func (r *report) line(text string) {
	marked, ok := strings.CutPrefix(text, plan.Mark)
	if !ok {
		if shown := strings.ReplaceAll(text, test2jsonMark, ""); !strings.HasPrefix(shown, "=== ") {
			fmt.Fprintln(r.echo, shown)
		}
		if r.binary != nil {
			fmt.Fprintln(r.binary, text)
		}
		return
	}
	word, rest, _ := strings.Cut(marked, " ")
	switch word {
	case plan.Kernel:
		r.kernel = rest
		fmt.Fprintf(r.echo, "kernels: Linux %s is up after %.1f s\n", rest, time.Since(r.started).Seconds())
	case plan.Begin:
		fmt.Fprintf(r.echo, "kernels: tests of %s\n", rest)
		r.binary, r.err = startTest2JSON(rest, r.events)
	case plan.End:
		code, name, _ := strings.Cut(rest, " ")
		if code != "0" {
			r.failed = append(r.failed, name+": exit status "+code)
		}
		r.close()
	}
}

// close ends the events of a binary, also of one that was cut off.
func (r *report) close() {
	if r.binary != nil {
		r.note(r.binary.Close())
		r.binary = nil
	}
}

func (r *report) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

// test2json is Go's own converter of a test's output to events.
type test2json struct {
	io.WriteCloser
	cmd *exec.Cmd
}

func startTest2JSON(name string, events io.Writer) (*test2json, error) {
	cmd := exec.Command("go", "tool", "test2json", "-t", "-p", name)
	cmd.Stdout, cmd.Stderr = events, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &test2json{in, cmd}, cmd.Start()
}

// Close waits until every event is written.
func (t *test2json) Close() error {
	if err := t.WriteCloser.Close(); err != nil {
		return err
	}
	return t.cmd.Wait()
}

// result is how one test ended.
type result struct {
	Package, Test, Action string
	reason                string // of a skip: the last line that the test itself wrote
}

// results reads events and gives the end of each test, in the order in which they ended.
func results(events io.Reader) ([]result, error) {
	var all []result
	said := map[string]string{}
	for d := json.NewDecoder(events); ; {
		var e struct{ Package, Test, Action, Output string }
		if err := d.Decode(&e); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("events of the tests: %w", err)
		}
		key := e.Package + " " + e.Test
		switch text := strings.TrimSpace(e.Output); {
		case e.Test == "":
		case e.Action == "output" && text != "" && !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- "):
			said[key] = text
		case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
			r := result{Package: e.Package, Test: e.Test, Action: e.Action}
			if e.Action == "skip" {
				r.reason = said[key]
			}
			all = append(all, r)
		}
	}
}

// compare says how the tests differ from those of the same packages that ran on the host, by name and by how they
// ended: a line each. What the host skipped may run here.
func compare(here, there []result) []string {
	packages, host := map[string]bool{}, map[string]string{}
	for _, e := range there {
		packages[path.Base(e.Package)] = true
		host[e.name()] = e.Action
	}
	if len(there) == 0 {
		return []string{"no test ran on the host"}
	}
	var lines []string
	ran := map[string]bool{}
	for _, e := range here {
		name := e.name()
		ran[name] = true
		switch other, ok := host[name]; {
		case !packages[path.Base(e.Package)] || skipped(host, name) && e.Action == "pass":
		case !ok:
			lines = append(lines, name+": "+e.Action+" here, not run on the host")
		case other != e.Action:
			lines = append(lines, name+": "+e.Action+" here, "+other+" on the host")
		}
	}
	for name, end := range host {
		if !ran[name] {
			lines = append(lines, name+": not run here, "+end+" on the host")
		}
	}
	slices.Sort(lines)
	return lines
}

// skipped says whether a test, or one that it is part of, was skipped.
func skipped(ends map[string]string, name string) bool {
	for {
		if ends[name] == "skip" {
			return true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return false
		}
		name = name[:i]
	}
}

func (r result) name() string { return path.Base(r.Package) + "/" + r.Test }

// list prints what failed, what was skipped and why, and the sum; it answers how many failed. What passed was shown as
// it went by.
func list(w io.Writer, kernel string, all []result) int {
	n := map[string]int{}
	for _, e := range all {
		n[e.Action]++
		switch e.Action {
		case "fail":
			fmt.Fprintf(w, "FAIL  %s\n", e.name())
		case "skip":
			fmt.Fprintf(w, "SKIP  %s: %s\n", e.name(), e.reason)
		}
	}
	fmt.Fprintf(w, "Linux %s: %d passed, %d failed, %d skipped\n", kernel, n["pass"], n["fail"], n["skip"])
	return n["fail"]
}
