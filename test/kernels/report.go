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
		fmt.Fprintln(r.echo, strings.ReplaceAll(text, test2jsonMark, ""))
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
		r.note(nil)
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
type result struct{ Package, Test, Action string }

// results reads events and gives the end of each test, in the order in which they ended.
func results(events io.Reader) ([]result, error) {
	var all []result
	for d := json.NewDecoder(events); ; {
		var e result
		if err := d.Decode(&e); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("events of the tests: %w", err)
		}
		if e.Test != "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			all = append(all, e)
		}
	}
}

// compare says how the tests differ from those that ran elsewhere, by name and by how they ended: a line each.
func compare(here, there []result) []string {
	ends := func(all []result) map[string]string {
		m := map[string]string{}
		for _, e := range all {
			m[path.Base(e.Package)+"/"+e.Test] = e.Action
		}
		return m
	}
	a, b := ends(here), ends(there)
	var lines []string
	for name, end := range a {
		if other, ok := b[name]; !ok {
			lines = append(lines, name+": "+end+" here, not run on the host")
		} else if other != end {
			lines = append(lines, name+": "+end+" here, "+other+" on the host")
		}
	}
	for name, end := range b {
		if _, ok := a[name]; !ok {
			lines = append(lines, name+": not run here, "+end+" on the host")
		}
	}
	slices.Sort(lines)
	return lines
}

// list prints each test and how it ended, and the sum; it answers how many failed.
func list(w io.Writer, kernel string, all []result) int {
	n := map[string]int{}
	for _, e := range all {
		n[e.Action]++
		fmt.Fprintf(w, "%s  %s/%s\n", strings.ToUpper(e.Action), e.Package, e.Test)
	}
	fmt.Fprintf(w, "Linux %s: %d passed, %d failed, %d skipped\n", kernel, n["pass"], n["fail"], n["skip"])
	return n["fail"]
}
