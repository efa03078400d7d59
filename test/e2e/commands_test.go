package e2e_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestRunPassesOutputAndExitCodeThrough(t *testing.T) {
	leakCheck(t, shared)
	file := filepath.Join(t.TempDir(), "program.py")
	if err := os.WriteFile(file, []byte("import sys; print(sys.argv[1:]); sys.exit(7)"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		out  string
		code int
	}{
		{"a file with arguments", []string{"run", file, "one", "--two"}, "['one', '--two']", 7},
		{"another language", []string{"run", "--language", "bash", "-c", "echo $((6*7)); kill -9 $$"}, "42", 137},
		{"the narrowest preset", []string{"run", "--preset", "maximum", "-c", "import os; print(os.getuid())"}, "65534", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := shared.command(tc.args...)
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tc.code || !strings.HasPrefix(out, tc.out) {
				t.Errorf("exit %d, want %d; printed %q, want %q", code, tc.code, out, tc.out)
			}
		})
	}
}

func TestTheCommandLineFindsTheServerBesideIt(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	if out, err := shared.command("ls"); err != nil || !strings.Contains(out, made.ID) {
		t.Errorf("ls does not list %s: %v\n%s", made.ID, err, out)
	}
	if out, err := shared.command("exec", made.ID, "--", "echo", "inside"); err != nil || strings.TrimSpace(out) != "inside" {
		t.Errorf("exec: %v\n%s", err, out)
	}
	if out, err := shared.command("rm", made.ID); err != nil {
		t.Errorf("rm: %v\n%s", err, out)
	}
	if _, err := shared.Get(t.Context(), made.ID); sandbox.CodeOf(err) != sandbox.NotFound {
		t.Errorf("after rm: %v", err)
	}
}

func TestASecondServerOnADataDirectoryIsRefused(t *testing.T) {
	onThisHost(t)
	out, err := shared.command("serve", "--listen", "127.0.0.1:0", "--data-dir", shared.dir)
	if err == nil || !strings.Contains(out, "another server runs on") {
		t.Errorf("%v\n%s", err, out)
	}
}
