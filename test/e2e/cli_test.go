package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"outpost.run/outpost/sandbox"
)

// ended is how a run of the command line ended.
type ended struct {
	code           int
	stdout, stderr string
}

// outpostCommand is the command line beside the server.
func (s *server) outpostCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "OUTPOST_DATA_DIR="+s.dir, "OUTPOST_TOKEN="+adminToken, "TERM=xterm")
	return cmd
}

// finish runs it to its end.
func finish(t *testing.T, cmd *exec.Cmd) (e ended) {
	t.Helper()
	var out, log bytes.Buffer
	cmd.Stdout = &out
	if cmd.Stderr == nil {
		cmd.Stderr = &log
	}
	err := cmd.Run()
	if exit, is := errors.AsType[*exec.ExitError](err); is {
		e.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	e.stdout, e.stderr = out.String(), log.String()
	return e
}

func TestExitCodesAreTheProgramsOrTellWhoseFailureItIs(t *testing.T) {
	leakCheck(t, shared)
	for _, tc := range []struct {
		name string
		args []string
		want int
	}{
		{"the program's own", []string{"run", "-c", "raise SystemExit(7)"}, 7},
		{"the program's own with --json", []string{"run", "--json", "-c", "raise SystemExit(7)"}, 7},
		{"a program that is killed", []string{"run", "-l", "bash", "-c", "kill -9 $$"}, 137},
		{"a program at its time limit", []string{"run", "-l", "bash", "--timeout-secs", "1", "-c", "sleep 600"}, 124},
		{"a command that there is not", []string{"run", "-l", "bash", "-c", "no-such-command"}, 127},
		{"a language that there is not", []string{"run", "-l", "cobol", "-c", "x"}, 125},
		{"no such flag of run", []string{"run", "--bogus"}, 125},
		{"a credential that is none, for a program", []string{"run", "--token", "wrong", "-c", "1"}, 125},
		{"a sandbox that there is not, for a program", []string{"exec", "sb_000000000000", "--", "true"}, 125},
		{"a sandbox that there is not", []string{"rm", "sb_000000000000"}, 1},
		{"a credential that is none", []string{"ls", "--token", "wrong"}, 1},
		{"no such flag", []string{"ls", "--bogus"}, 2},
		{"no such command", []string{"image", "bogus"}, 2},
		{"help", []string{"run", "--help"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if e := finish(t, shared.outpostCommand(tc.args...)); e.code != tc.want {
				t.Errorf("%v: exit %d, want %d\n%s%s", tc.args, e.code, tc.want, e.stdout, e.stderr)
			}
		})
	}
}

func TestAnInterruptedCommandExits130(t *testing.T) {
	leakCheck(t, shared)
	cmd := shared.outpostCommand("run", "-l", "bash", "-c", "echo on; sleep 600")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "on\n" { // it comes while the program runs
		t.Errorf("told %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
}

// jsonOf runs a command with --json and reads the one value that it prints.
func jsonOf[T any](t *testing.T, s *server, args ...string) (v T) {
	t.Helper()
	e := finish(t, s.outpostCommand(append([]string{"--json"}, args...)...))
	d := json.NewDecoder(strings.NewReader(e.stdout))
	if err := d.Decode(&v); err != nil || e.code != 0 || e.stderr != "" {
		t.Fatalf("%v: exit %d, %v\n%s%s", args, e.code, err, e.stdout, e.stderr)
	}
	if rest, _ := io.ReadAll(d.Buffered()); strings.TrimSpace(string(rest)) != "" {
		t.Errorf("%v prints more than one value: %s", args, e.stdout)
	}
	return v
}

func TestEveryCommandPrintsJSONForPrograms(t *testing.T) {
	leakCheck(t, shared)
	type object = map[string]any
	made := jsonOf[sandbox.Sandbox](t, shared, "create", "--stateful", "bash")
	t.Cleanup(func() { _ = shared.Delete(t.Context(), made.ID) })
	one := func(list []object, name, want string) {
		t.Helper()
		if !slices.ContainsFunc(list, func(o object) bool { return o[name] == want }) {
			t.Errorf("%v has no %s %s", list, name, want)
		}
	}
	one(jsonOf[[]object](t, shared, "ls"), "id", made.ID)
	one(jsonOf[[]object](t, shared, "ls", "-q"), "id", made.ID)
	background := jsonOf[sandbox.ExecState](t, shared, "exec", "-d", "-c", "sleep 600", made.ID)
	one(jsonOf[[]object](t, shared, "execs", made.ID), "id", background.ID)
	if all := jsonOf[[]sandbox.Process](t, shared, "ps", made.ID); len(all) == 0 {
		t.Error("ps shows no process")
	}
	jsonOf[sandbox.ExecState](t, shared, "execs", "cancel", made.ID, background.ID)
	if e := jsonOf[sandbox.ExecState](t, shared, "execs", "get", "--wait", made.ID, background.ID); e.Result == nil || e.Result.TerminationReason != sandbox.Cancelled {
		t.Errorf("execs get: %+v", e)
	}
	one(jsonOf[[]object](t, shared, "stop", made.ID), "status", "stopped")
	one(jsonOf[[]object](t, shared, "start", made.ID), "status", "running")
	one(jsonOf[[]object](t, shared, "rm", made.ID), "id", made.ID)

	job := jsonOf[sandbox.Job](t, shared, "job", "submit", "-c", "print(1)")
	one(jsonOf[[]object](t, shared, "job", "ls"), "id", job.ID)
	if done := jsonOf[sandbox.Job](t, shared, "job", "get", "-w", job.ID); done.Status != sandbox.JobSucceeded {
		t.Errorf("job get: %+v", done)
	}
	jsonOf[object](t, shared, "job", "logs", job.ID)
	queued := jsonOf[sandbox.Job](t, shared, "job", "submit", "-l", "bash", "-c", "sleep 600")
	one(jsonOf[[]object](t, shared, "job", "cancel", queued.ID), "id", queued.ID)
	jsonOf[object](t, shared, "job", "callback-key")

	token := jsonOf[sandbox.Token](t, shared, "token", "create", "of-a-test")
	one(jsonOf[[]object](t, shared, "token", "ls"), "id", token.ID)
	one(jsonOf[[]object](t, shared, "token", "rm", token.ID), "id", token.ID)
	key := jsonOf[sandbox.Key](t, shared, "key", "create", "of-a-test")
	one(jsonOf[[]object](t, shared, "key", "ls"), "id", key.ID)
	one(jsonOf[[]object](t, shared, "key", "rm", key.ID), "id", key.ID)

	if images := jsonOf[[]object](t, shared, "image", "ls"); len(images) == 0 {
		t.Error("image ls shows nothing")
	}
	if found := jsonOf[object](t, shared, "doctor"); !slices.Equal(slices.Sorted(maps.Keys(found)), []string{"engines", "images", "network"}) {
		t.Errorf("doctor: %v", found)
	}

	e := finish(t, shared.outpostCommand("rm", "--json", made.ID, "sb_000000000000"))
	if lines := strings.Split(strings.TrimSpace(e.stderr), "\n"); e.code != 1 || len(lines) != 2 || strings.TrimSpace(e.stdout) != "[]" {
		t.Errorf("rm of two that there are not: exit %d\n%s%s", e.code, e.stdout, e.stderr)
	} else {
		for _, line := range lines {
			var told struct {
				Error struct {
					sandbox.ErrorBody
					ID string
				}
			}
			if err := json.Unmarshal([]byte(line), &told); err != nil || told.Error.Code != sandbox.NotFound || told.Error.RequestID == "" || told.Error.ID == "" {
				t.Errorf("%v: %s", err, line)
			}
		}
	}
}

func TestEventsForProgramsAreLinesOfJSON(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	cmd := shared.outpostCommand("events", "--json", "--since", "0", made.ID)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n') // it comes while the command runs on
	var e sandbox.Event
	if err == nil {
		err = json.Unmarshal(line, &e)
	}
	if err != nil || e.SandboxID != made.ID {
		t.Errorf("%v: %s", err, line)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("who stops looking has seen what there is: %v", err)
	}
}

func TestTheDemosAnswersAreForProgramsToo(t *testing.T) {
	onThisHost(t)
	dir, err := os.MkdirTemp(work, "data-")
	if err == nil {
		err = linkImages(filepath.Join(dir, "images"))
	}
	if err != nil {
		t.Fatal(err)
	}
	e := finish(t, exec.Command(binary, "demo", "--json", "--data-dir", dir))
	var both struct {
		Sandbox sandbox.Sandbox
		Result  sandbox.ExecResult
	}
	err = json.Unmarshal([]byte(e.stdout), &both)
	if err != nil || e.code != 0 || both.Result.SandboxID != both.Sandbox.ID || !strings.Contains(both.Result.Stdout, "Hello from Python") || strings.Contains(e.stderr, cleared) {
		t.Errorf("exit %d, %v\n%s%s", e.code, err, e.stdout, e.stderr)
	}
	if out, err := exec.Command(binary, "doctor", "--leaks", "--data-dir", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := removeBelow(dir); err != nil {
		t.Error(err)
	}
}

func TestLogsForProgramsAreLinesOfJSON(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	x, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sh", "-c", "echo out; echo err >&2; printf '\\377'; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	e := finish(t, shared.outpostCommand("logs", "-f", "--json", made.ID, x.ID))
	told := map[string]string{}
	var result *sandbox.ExecResult
	for line := range strings.Lines(e.stdout) {
		var piece struct {
			Stream string
			Data   sandbox.FileContent
			Result *sandbox.ExecResult
		}
		if err := json.Unmarshal([]byte(line), &piece); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		told[piece.Stream] += string(piece.Data)
		result = piece.Result
	}
	if e.code != 3 || told["stdout"] != "out\n\xff" || told["stderr"] != "err\n" || result == nil || result.ExitCode != 3 {
		t.Errorf("exit %d\n%s%s", e.code, e.stdout, e.stderr)
	}
}

func TestInputIsPassedWhereItIsRedirected(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	file := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(file, []byte("of a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	w := newTerminal(t)
	endless, writer, err := os.Pipe() // nobody may wait for its end
	if err != nil {
		t.Fatal(err)
	}
	defer endless.Close()
	defer writer.Close()
	for _, tc := range []struct {
		name string
		args []string
		in   io.Reader
		want string
	}{
		{"a pipe", []string{"run", "-l", "bash", "-c", "cat"}, strings.NewReader("of a pipe"), "of a pipe"},
		{"a file", []string{"exec", made.ID, "--", "cat"}, opened, "of a file"},
		{"nothing", []string{"exec", made.ID, "--", "cat"}, nil, ""},
		{"a terminal is nobody's input", []string{"exec", made.ID, "--", "cat"}, w.inside, ""},
		{"input that is to be left alone", []string{"exec", "-i=false", made.ID, "--", "cat"}, endless, ""},
		{"the program itself", []string{"run", "-l", "bash", "-"}, strings.NewReader("echo of a program; cat"), "of a program\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := shared.outpostCommand(tc.args...)
			cmd.Stdin = tc.in
			if e := finish(t, cmd); e.stdout != tc.want || e.code != 0 {
				t.Errorf("exit %d, printed %q, want %q\n%s", e.code, e.stdout, tc.want, e.stderr)
			}
		})
	}
}

// terminal is one that somebody watches.
type terminal struct {
	inside, outside *os.File
	told            string
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	outside, inside, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close(); outside.Close() })
	return &terminal{inside: inside, outside: outside}
}

// until reads until the terminal has shown all the words, in any order.
func (w *terminal) until(t *testing.T, words ...string) {
	t.Helper()
	piece := make([]byte, 4096)
	for slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(w.told, word) }) {
		n, err := w.outside.Read(piece)
		if err != nil {
			t.Fatalf("%v after %q", err, w.told)
		}
		w.told += string(piece[:n])
	}
}

// end gives all that was shown once nobody writes there any more.
func (w *terminal) end() string {
	w.inside.Close()
	rest, _ := io.ReadAll(w.outside)
	return w.told + string(rest)
}

const cleared = "\r\x1b[K"

func TestWaitingForAnImageIsShownOnATerminalAlone(t *testing.T) {
	r := newHub(t)
	s := r.server(t, "")
	image := r.push(t, "slow:1", picture(t, v1.Config{}))
	hold := make(chan struct{})
	r.holdBlobs(hold)
	w := newTerminal(t)
	args := []string{"run", "-l", "bash", "--image", image, "-c", "say"}
	watched, alone := s.outpostCommand(args...), s.outpostCommand(args...)
	watched.Stderr = w.inside
	ends := make(chan ended)
	for _, cmd := range []*exec.Cmd{watched, alone} {
		go func() { ends <- finish(t, cmd) }()
	}
	w.until(t, image+" is being made")
	close(hold)
	for range 2 {
		if e := <-ends; e.code != 0 || !strings.Contains(e.stdout, "true") || e.stderr != "" {
			t.Errorf("exit %d\n%s%s", e.code, e.stdout, e.stderr)
		}
	}
	if told := w.end(); !strings.HasSuffix(told, cleared) {
		t.Errorf("the line stays: %q", told)
	}
}

func TestMakingAnImageIsShownOnATerminalAlone(t *testing.T) {
	r := newHub(t)
	s := r.server(t, "")
	image := r.push(t, "app:1", picture(t, v1.Config{}))
	w := newTerminal(t)
	watched := s.outpostCommand("image", "pull", image)
	watched.Stderr = w.inside
	for _, cmd := range []*exec.Cmd{watched, s.outpostCommand("image", "pull", image)} {
		if e := finish(t, cmd); e.code != 0 || !strings.HasPrefix(e.stdout, "sha256:") || e.stderr != "" {
			t.Errorf("exit %d\n%s%s", e.code, e.stdout, e.stderr)
		}
	}
	if told := w.end(); !strings.Contains(told, image+": download") || !strings.HasSuffix(told, cleared) {
		t.Errorf("shown: %q", told)
	}
}

func TestAServerInATerminalShowsWhatItPrepares(t *testing.T) {
	r := newHub(t)
	onThisHost(t)
	image := r.push(t, "slow:1", picture(t, v1.Config{}))
	hold := make(chan struct{})
	defer close(hold)
	r.holdBlobs(hold)
	dir, err := os.MkdirTemp(work, "data-")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "outpost.yaml")
	text := fmt.Sprintf("images: {bash: %q, python: '', node: '', go: '', rust: '', allow_private_registries: [%q]}\n", image, r.host)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newTerminal(t)
	cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--config", config)
	cmd.Stderr, cmd.Env = w.inside, append(os.Environ(), "TERM=xterm")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until(t, cleared+image+": ", "outpost ready on http://")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, w.end())
	}
	told := w.end()
	for i := range len(told) {
		if before, is := told[:i], strings.HasPrefix(told[i:], "time="); is && i > 0 && !strings.HasSuffix(before, cleared) && !strings.HasSuffix(before, "\n") {
			t.Errorf("a line of the log and the progress are one: %q", told)
			break
		}
	}
	if out, err := exec.Command(binary, "doctor", "--leaks", "--data-dir", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := removeBelow(dir); err != nil {
		t.Error(err)
	}
}

func TestASandboxesIDCompletes(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	for _, tc := range []struct {
		name string
		args []string
		env  string
		want bool
	}{
		{"for rm", []string{"rm", ""}, "", true},
		{"for exec", []string{"exec", made.ID[:5]}, "", true},
		{"for shell", []string{"shell", ""}, "", true},
		{"not twice", []string{"rm", made.ID, ""}, "", false},
		{"not where it can't be started", []string{"start", ""}, "", false},
		{"as the place of a copy", []string{"cp", made.ID[:5]}, "", true},
		{"as a place that has hardly begun", []string{"cp", "sb"}, "", true},
		{"where a copy of a file can only go", []string{"cp", "file", ""}, "", true},
		{"not where it goes to this host", []string{"cp", made.ID + ":a", ""}, "", false},
		{"not for who may not see it", []string{"rm", ""}, "OUTPOST_TOKEN=wrong", false},
		{"not without a server", []string{"rm", ""}, "OUTPOST_URL=http://127.0.0.1:1", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := shared.outpostCommand(append([]string{"__completeNoDesc"}, tc.args...)...)
			cmd.Env = append(cmd.Env, tc.env)
			e := finish(t, cmd)
			if e.code != 0 || strings.Contains(e.stdout, made.ID) != tc.want {
				t.Errorf("exit %d, want %s: %v\n%s%s", e.code, made.ID, tc.want, e.stdout, e.stderr)
			}
		})
	}
}

func TestCompletionScriptsLoad(t *testing.T) {
	onThisHost(t)
	for _, tc := range []struct {
		shell string
		args  []string // it reads the script from its input
		want  string
	}{
		{"bash", []string{"--norc", "-c", `source /dev/stdin && complete -p outpost`}, "complete -o default -F __start_outpost outpost"},
		{"zsh", []string{"-f", "-n", "/dev/stdin"}, ""},
		{"fish", []string{"--no-config", "--no-execute", "/dev/stdin"}, ""},
	} {
		t.Run(tc.shell, func(t *testing.T) {
			script := finish(t, exec.Command(binary, "completion", tc.shell))
			if script.code != 0 || script.stdout == "" {
				t.Fatalf("exit %d\n%s", script.code, script.stderr)
			}
			if _, err := exec.LookPath(tc.shell); err != nil {
				t.Skip("there is no " + tc.shell + " here")
			}
			cmd := exec.Command(tc.shell, tc.args...)
			cmd.Stdin = strings.NewReader(script.stdout)
			if e := finish(t, cmd); e.code != 0 || !strings.Contains(e.stdout, tc.want) || e.stderr != "" {
				t.Errorf("exit %d\n%s%s", e.code, e.stdout, e.stderr)
			}
		})
	}
}

func TestManualPagesAreWellFormed(t *testing.T) {
	onThisHost(t)
	dir := t.TempDir()
	if e := finish(t, exec.Command(binary, "man", dir)); e.code != 0 {
		t.Fatalf("exit %d\n%s", e.code, e.stderr)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 30 || !slices.Contains(pages, filepath.Join(dir, "outpost-run.1")) {
		t.Fatalf("%v, %v", pages, err)
	}
	reader := []string{"man", "--warnings", "-l"}
	if _, err := exec.LookPath("mandoc"); err == nil {
		reader = []string{"mandoc", "-T", "lint", "-W", "error"}
	} else if _, err := exec.LookPath("man"); err != nil {
		t.Skip("there is neither mandoc nor man here to read them")
	}
	for _, page := range pages {
		e := finish(t, exec.Command(reader[0], append(reader[1:], page)...))
		if e.code != 0 || e.stderr != "" {
			t.Errorf("%s: exit %d\n%s", filepath.Base(page), e.code, e.stderr)
		}
	}
}

func TestAServerThatDiesUnderAnExecIsTold(t *testing.T) {
	s := newServer(t)
	made := s.box(t, stateful())
	cmd := s.outpostCommand("exec", made.ID, "--", "sh", "-c", "echo on; sleep 600")
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "on\n" {
		t.Errorf("told %q, %v", line, err)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(log.String(), "connection to the server was lost") || !strings.Contains(log.String(), "outpost execs "+made.ID) || strings.Contains(log.String(), "EOF") {
		t.Errorf("exit %d\n%s", code, &log)
	}
	if err := s.start(); err != nil { // so that the sandbox can be deleted
		t.Fatal(err)
	}
}

func TestAServerThatCantListenLeavesNoFolder(t *testing.T) {
	onThisHost(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := filepath.Join(t.TempDir(), "data")
	e := finish(t, exec.Command(binary, "serve", "--listen", taken.Addr().String(), "--data-dir", dir))
	if _, err := os.Stat(dir); e.code != 1 || !strings.Contains(e.stderr, "address already in use") || !os.IsNotExist(err) {
		t.Errorf("exit %d, %v\n%s", e.code, err, e.stderr)
	}
}

func TestSignalsAreSentAsByKill(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	for flag, want := range map[string]int{"-9": 137, "-KILL": 137, "-TERM": 143, "-USR1": 138} {
		x, err := shared.Background(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"sleep", "600"}})
		if err != nil {
			t.Fatal(err)
		}
		pid := ""
		for end := time.Now().Add(10 * time.Second); pid == "" && time.Now().Before(end); { // what has started may still be on its way to its command
			for _, p := range jsonOf[[]sandbox.Process](t, shared, "ps", made.ID) {
				if slices.Equal(p.Command, []string{"sleep", "600"}) {
					pid = strconv.Itoa(p.Pid)
				}
			}
		}
		if e := finish(t, shared.outpostCommand("kill", flag, made.ID, pid)); e.code != 0 {
			t.Errorf("kill %s: exit %d\n%s", flag, e.code, e.stderr)
		}
		if e := finish(t, shared.outpostCommand("logs", "-f", made.ID, x.ID)); e.code != want {
			t.Errorf("after %s: exit %d, want %d\n%s", flag, e.code, want, e.stderr)
		}
		if e := finish(t, shared.outpostCommand("execs", made.ID)); !strings.Contains(e.stdout, strconv.Itoa(want)) {
			t.Errorf("execs:\n%s", e.stdout)
		}
	}
}

func TestTheResultOfABackgroundExecIsText(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	e := finish(t, shared.outpostCommand("exec", "-d", made.ID, "--", "echo", "hello"))
	id := strings.TrimSpace(e.stdout)
	e = finish(t, shared.outpostCommand("logs", "-f", "--json", made.ID, id))
	if !strings.Contains(e.stdout, `"stdout":"hello\n"`) {
		t.Errorf("exit %d\n%s%s", e.code, e.stdout, e.stderr)
	}
}
