package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	for _, tc := range []struct {
		name   string
		events string
		good   bool
		want   []string // in the output, in this order
	}{
		{name: "a skip is named with its reason before the sum", good: true, events: `
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: cgroup.kill: no unified hierarchy\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Elapsed":0.2}`,
			want: []string{"pass    0.2 s  p", "p TestA: cgroup.kill: no unified hierarchy", "1 passed, 0 failed, 1 skipped"}},
		{name: "a failure shows its output", events: `
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Elapsed":0.2}`,
			want: []string{"FAIL p TestA", "got 1, want 2", "0 passed, 1 failed, 0 skipped"}},
		{name: "a package that does not build fails", events: `
{"Action":"build-output","ImportPath":"p [p.test]","Output":"undefined: x\n"}
{"Action":"build-fail","ImportPath":"p [p.test]"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			want: []string{"FAIL p", "undefined: x", "1 packages failed outside", "0 passed, 1 failed, 0 skipped"}},
		{name: "a package that dies outside its tests fails", events: `
{"Action":"output","Package":"p","Output":"panic: boom\n"}
{"Action":"fail","Package":"p"}`,
			want: []string{"panic: boom", "0 passed, 1 failed, 0 skipped"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			s := newSummary(&out)
			if err := s.read(strings.NewReader(strings.TrimSpace(tc.events))); err != nil {
				t.Fatal(err)
			}
			if got := s.end(); got != tc.good {
				t.Errorf("end() = %v, want %v", got, tc.good)
			}
			rest := out.String()
			for _, want := range tc.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("output lacks %q (in this order):\n%s", want, out.String())
				}
				rest = after
			}
			if !strings.HasSuffix(out.String(), tc.want[len(tc.want)-1]+"\n") {
				t.Errorf("the sum is not the last line:\n%s", out.String())
			}
		})
	}
}
