package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// endless has always more.
type endless struct{}

// Read implements io.Reader.
func (endless) Read(b []byte) (int, error) { return len(b), nil }

const echoes = "import sys\nfor line in sys.stdin: print('got', line.strip(), flush=True)\nprint('end')"

func TestAProgramIsTalkedWithWhileItRuns(t *testing.T) {
	leakCheck(t, shared)
	for _, mode := range []string{"ephemeral", "stateful"} {
		t.Run(mode, func(t *testing.T) {
			made := shared.box(t, sandbox.CreateRequest{Mode: &mode})
			in, words := io.Pipe()
			var stdout heard
			stdout.f = func(sofar string) { // each answer brings the next word
				switch {
				case strings.HasSuffix(sofar, "got first\ngot 0\n"):
					fmt.Fprintln(words, "1")
				case strings.HasSuffix(sofar, "got 1\n"):
					words.Close()
				}
			}
			go fmt.Fprintln(words, "0")
			r, err := shared.ExecLive(t.Context(), made.ID, sandbox.ExecRequest{Code: new(echoes), Stdin: new("first\n")}, client.Live{Stdin: in, Stdout: &stdout})
			if err != nil || r.ExitCode != 0 || stdout.String() != "got first\ngot 0\ngot 1\nend\n" {
				t.Errorf("%q, %+v, %v", stdout.String(), r, err)
			}
		})
	}
	t.Run("in no sandbox", func(t *testing.T) {
		var stdout bytes.Buffer
		r, err := shared.ExecuteLive(t.Context(), sandbox.ExecuteRequest{Language: new("python"), Code: new(echoes)}, client.Live{Stdin: strings.NewReader("a\n"), Stdout: &stdout})
		if err != nil || r.ExitCode != 0 || stdout.String() != "got a\nend\n" {
			t.Errorf("%q, %+v, %v", stdout.String(), r, err)
		}
	})
}

func TestInputIsTakenAsTheProgramReads(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	const size = 50 << 20
	sum := sha256.New()
	var stdout bytes.Buffer
	live := client.Live{Stdin: io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{}), size), sum), Stdout: &stdout}
	r, err := shared.ExecLive(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sha256sum"}}, live)
	if want := fmt.Sprintf("%x  -\n", sum.Sum(nil)); err != nil || stdout.String() != want {
		t.Errorf("%q instead of %q; %+v, %v", stdout.String(), want, r, err)
	}
	for name, code := range map[string]string{
		"ends before its input": "import sys; sys.stdin.read(1); print('enough')",
		"closes its input":      "import os, time; os.close(0); time.sleep(.3); print('enough')",
		"reads nothing":         "import time; time.sleep(.3); print('enough')",
	} {
		t.Run(name, func(t *testing.T) {
			var stdout bytes.Buffer
			r, err := shared.ExecLive(t.Context(), made.ID, sandbox.ExecRequest{Code: &code}, client.Live{Stdin: endless{}, Stdout: &stdout})
			if err != nil || r.ExitCode != 0 || stdout.String() != "enough\n" {
				t.Errorf("%q, %+v, %v", stdout.String(), r, err)
			}
		})
	}
	t.Run("its time is up", func(t *testing.T) {
		in, words := io.Pipe() // silent
		defer words.Close()
		r, err := shared.ExecLive(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"cat"}, TimeoutSecs: new(1)}, client.Live{Stdin: in})
		if err != nil || r.ExitCode != 124 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestAProgramInTheBackgroundIsTalkedWith(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	feed := func(what string, e sandbox.ExecState, text string, more bool, want sandbox.Code) {
		t.Helper()
		n, err := shared.FeedExec(t.Context(), made.ID, e.ID, strings.NewReader(text), more)
		if sandbox.CodeOf(err) != want || want == "" && n != int64(len(text)) {
			t.Errorf("%s: %d, %v", what, n, err)
		}
	}
	e, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Code: new(echoes), StdinOpen: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	feed("one word", e, "a\n", true, "")
	feed("another", e, "b\n", true, "")
	in, words := io.Pipe()
	ctx, hangUp := context.WithCancel(t.Context())
	broken := make(chan error)
	go func() {
		_, err := shared.FeedExec(ctx, made.ID, e.ID, in, false)
		broken <- err
	}()
	fmt.Fprintln(words, "c")
	var stdout heard
	stdout.f = func(sofar string) {
		switch {
		case strings.HasSuffix(sofar, "got c\n"):
			feed("while another writes", e, "x\n", false, sandbox.Conflict)
			hangUp()
			<-broken
			for range 50 { // the server hears of it in a moment
				if _, err = shared.FeedExec(t.Context(), made.ID, e.ID, strings.NewReader("d\n"), false); sandbox.CodeOf(err) != sandbox.Conflict {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err != nil {
				t.Errorf("after a call that broke off: %v", err)
			}
		}
	}
	if err := shared.FollowExec(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, &stdout); err != nil || stdout.String() != "got a\ngot b\ngot c\ngot d\nend\n" {
		t.Errorf("%q, %v", stdout.String(), err)
	}
	feed("after its end", e, "x", false, sandbox.AlreadyFinished)

	e, err = shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sleep", "1"}})
	if err != nil {
		t.Fatal(err)
	}
	feed("not open", e, "x", false, sandbox.Conflict)
	e, err = shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "cat; sleep 1"}, StdinOpen: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	feed("the last", e, "x", false, "")
	feed("after the last", e, "x", false, sandbox.Conflict)
	if err := shared.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	feed("of a sandbox that is gone", e, "x", false, sandbox.NotFound)
}

func TestInputEndsWithTheServer(t *testing.T) {
	s := newServer(t)
	made := s.box(t, stateful())
	e, err := s.Background(t.Context(), made.ID, sandbox.ExecRequest{Code: new(echoes), StdinOpen: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	in, words := io.Pipe()
	defer words.Close()
	fed := make(chan error, 1)
	go func() {
		_, err := s.FeedExec(t.Context(), made.ID, e.ID, in, false)
		fed <- err
	}()
	fmt.Fprintln(words, "word")
	for o := (client.Output{}); o.Next == 0; o.Close() {
		if o, err = s.ExecOutput(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	words.Close() // net/http gives no broken connection back before a body's read returns
	if err := <-fed; sandbox.CodeOf(err) != sandbox.ShuttingDown && sandbox.CodeOf(err) != sandbox.Lost {
		t.Errorf("%v", err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := s.FollowExec(t.Context(), made.ID, e.ID, sandbox.Stdout, 0, &said); err != nil || said.String() != "got word\nend\n" {
		t.Errorf("%q, %v", said.String(), err)
	}
	if _, err := s.FeedExec(t.Context(), made.ID, e.ID, strings.NewReader("x"), false); sandbox.CodeOf(err) != sandbox.Conflict {
		t.Errorf("after the restart: %v", err)
	}
}

// TestTheCommandLineTalksWithAProgram pipes both ways, as those do who start a tool in a sandbox.
func TestTheCommandLineTalksWithAProgram(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	for _, args := range [][]string{{"exec", made.ID, "--", "cat"}, {"run", "-c", "import shutil, sys; sys.stdin.reconfigure(newline='')\nfor line in sys.stdin: print(line, end='', flush=True)"}} {
		cmd := shared.outpostCommand(args...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 6)
		for _, word := range []string{"first\n", "other\n", "third\n"} {
			time.Sleep(200 * time.Millisecond) // it does not wait for all
			if _, err := io.WriteString(in, word); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, answer); err != nil || string(answer) != word {
				t.Fatalf("%s: %q, %v, %s", args, answer, err, &stderr)
			}
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v, %s", args, err, &stderr)
		}
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than a request may have
	cmd := shared.outpostCommand("exec", made.ID, "--", "wc", "-c")
	cmd.Stdin = bytes.NewReader(big)
	if e := finish(t, cmd); e.code != 0 || strings.TrimSpace(e.stdout) != "16777216" {
		t.Errorf("%+v", e)
	}
	id := strings.TrimSpace(finish(t, shared.outpostCommand("exec", "-d", "--stdin-open", made.ID, "--", "python3", "-i", "-q")).stdout)
	cmd = shared.outpostCommand("execs", "stdin", "--more", made.ID, id)
	cmd.Stdin = strings.NewReader("x = 6 * 7\n")
	finish(t, cmd)
	cmd = shared.outpostCommand("--json", "execs", "stdin", made.ID, id)
	cmd.Stdin = strings.NewReader("print(x)\n")
	if e := finish(t, cmd); e.code != 0 || !strings.Contains(e.stdout, `"bytes": 9`) {
		t.Errorf("%+v", e)
	}
	if e := finish(t, shared.outpostCommand("logs", "-f", made.ID, id)); e.code != 0 || e.stdout != "42\n" {
		t.Errorf("%+v", e)
	}
}
