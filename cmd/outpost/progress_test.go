package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// openTerminal gives both sides of a terminal: what is written to inside comes out at outside.
func openTerminal(t *testing.T, columns uint16) (inside, outside *os.File) {
	t.Helper()
	outside, inside, err := pty.Open()
	if err == nil {
		err = pty.Setsize(outside, &pty.Winsize{Rows: 24, Cols: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close(); outside.Close() })
	return inside, outside
}

// shown is what a terminal was told while it was written to.
func shown(t *testing.T, columns uint16, write func(w *os.File)) string {
	t.Helper()
	t.Setenv("TERM", "xterm")
	inside, outside := openTerminal(t, columns)
	write(inside)
	inside.Close()
	told, _ := io.ReadAll(outside) // EIO is how the outside learns of the end
	return string(told)
}

func TestProgressIsALineOfTheTerminalThatGoesAway(t *testing.T) {
	told := shown(t, 60, func(w *os.File) {
		p := newProgress(w)
		p.say("deb:trixie: download", 1, 4)
		fmt.Fprintln(p.above(w), "a line of the log")
		p.say("deb:trixie: "+strings.Repeat("x", 100), 0, 0)
		p.end()
	})
	parts := strings.Split(told, clearLine)
	want := []string{"", "deb:trixie: download  [#######-----------------------]  25%", "a line of the log\r\n", "deb:trixie: download  [#######-----------------------]  25%",
		"deb:trixie: " + strings.Repeat("x", 47), ""}
	if got := strings.Join(parts, "|"); got != strings.Join(want, "|") {
		t.Errorf("told %q,\nwant %q", parts, want)
	}
}

func TestNoProgressWhereNobodyLooks(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.say("deb:trixie: download", 1, 4)
	if w := p.above(&out); w != &out {
		t.Error("lines go through a progress that nobody sees")
	}
	p.end()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	piped := newProgress(w)
	piped.say("deb:trixie: download", 1, 4)
	piped.end()
	w.Close()
	if told, err := io.ReadAll(r); err != nil || len(told) > 0 || out.Len() > 0 {
		t.Errorf("told %q and %q, %v", out.String(), told, err)
	}
}

func TestInputIsWhatIsRedirected(t *testing.T) {
	terminal, _ := openTerminal(t, 80)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer other.Close()
	for _, tc := range []struct {
		name string
		in   io.Reader
		want bool
	}{{"a terminal", terminal, false}, {"/dev/null", null, false}, {"a file", file, true}, {"a pipe", pipe, true}} {
		if got := redirected(tc.in); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
