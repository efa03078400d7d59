package e2e_test

import (
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

// TestEachEventHasItsAnswer is the contract's table of outcomes, a row a case.
func TestEachEventHasItsAnswer(t *testing.T) {
	leakCheck(t, shared)
	for _, tc := range []struct {
		name           string
		code           string
		command        []string
		exit           int
		reason         sandbox.TerminationReason
		signal         string
		stdout, stderr string // what they begin with
	}{
		{name: "an exit code", code: "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", exit: 3, reason: sandbox.Exited, stdout: "out\n", stderr: "err\n"},
		{name: "an exception", code: "1/0", exit: 1, reason: sandbox.Exited, stderr: "Traceback"},
		{name: "no Python at all", code: "def", exit: 1, reason: sandbox.Exited, stderr: "  File"},
		{name: "its own SIGTERM", code: "import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGTERM)", exit: 143, reason: sandbox.Signaled, signal: "SIGTERM", stdout: "x"},
		{name: "a fault", code: "import ctypes; ctypes.string_at(0)", exit: 139, reason: sandbox.Signaled, signal: "SIGSEGV"},
		{name: "an abort", code: "import os; os.abort()", exit: 134, reason: sandbox.Signaled, signal: "SIGABRT"},
		{name: "no such command", command: []string{"no-such-command"}, exit: 127, reason: sandbox.Exited, stderr: "no-such-command: command not found"},
		{name: "no such file", command: []string{"/no/such"}, exit: 127, reason: sandbox.Exited, stderr: "/no/such: No such file or directory"},
		{name: "not executable", command: []string{"/etc/passwd"}, exit: 126, reason: sandbox.Exited, stderr: "/etc/passwd: Permission denied"},
		{name: "a directory", command: []string{"/etc"}, exit: 126, reason: sandbox.Exited, stderr: "/etc: "},
		{name: "a command", command: []string{"sh", "-c", "echo $0 $1", "a", "b c"}, exit: 0, reason: sandbox.Exited, stdout: "a b c\n"},
		{name: "the deadline", code: "print('so far', flush=True)\nwhile True: pass", exit: 124, reason: sandbox.TimedOut, signal: "SIGKILL", stdout: "so far\n"},
		{name: "the memory limit", code: "print('so far', flush=True)\nb = bytearray(1 << 30)", exit: 137, reason: sandbox.OOMKilled, signal: "SIGKILL", stdout: "so far\n"},
	} {
		for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful} {
			t.Run(tc.name+" in "+string(mode), func(t *testing.T) {
				made := shared.box(t, sandbox.CreateRequest{Mode: new(string(mode)),
					ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(64), TimeoutMS: new(1000), DiskMB: new(32)}})
				e := sandbox.ExecRequest{Command: tc.command}
				if tc.command == nil {
					e.Code = &tc.code
				}
				if tc.reason != sandbox.TimedOut {
					e.TimeoutSecs = new(20)
				}
				r, err := shared.Exec(t.Context(), made.ID, e)
				if err != nil {
					t.Fatal(err)
				}
				signal := ""
				if r.Signal != nil {
					signal = *r.Signal
				}
				if r.ExitCode != tc.exit || r.TerminationReason != tc.reason || signal != tc.signal {
					t.Errorf("exit_code %d, %s, signal %q; want %d, %s, %q", r.ExitCode, r.TerminationReason, signal, tc.exit, tc.reason, tc.signal)
				}
				if r.TimedOut != (tc.reason == sandbox.TimedOut) || r.OOMKilled != (tc.reason == sandbox.OOMKilled) {
					t.Errorf("timed_out %v, oom_killed %v", r.TimedOut, r.OOMKilled)
				}
				if !strings.HasPrefix(r.Stdout, tc.stdout) || !strings.HasPrefix(r.Stderr, tc.stderr) {
					t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
				}
				if len(r.Isolation.Missing) > 0 || len(r.Isolation.Effective) < 15 {
					t.Errorf("isolation %+v", r.Isolation)
				}
			})
		}
	}
}

func TestAnEphemeralSandboxForgetsAndAStatefulOneKeeps(t *testing.T) {
	leakCheck(t, shared)
	const mark = "import os; print(os.path.exists('/tmp/mark'), os.path.exists('/workspace/mark'), os.path.exists('/dev/shm/mark'))\nfor d in ('/tmp', '/workspace', '/dev/shm'): open(d + '/mark', 'w')"
	for mode, second := range map[sandbox.Mode]string{sandbox.Ephemeral: "False False False", sandbox.Stateful: "True True True"} {
		made := shared.box(t, sandbox.CreateRequest{Mode: new(string(mode))})
		for n, want := range []string{"False False False", second, second} {
			if out := clean(t, shared.python(t, made.ID, mark)); out != want {
				t.Errorf("%s, exec %d: %s, want %s", mode, n+1, out, want)
			}
		}
	}
}
