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

func TestASandboxIsShownChangedAndReached(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	run := func(args ...string) string {
		t.Helper()
		e := finish(t, shared.outpostCommand(args...))
		if e.code != 0 {
			t.Errorf("%v: %+v", args, e)
		}
		return e.stdout
	}
	if got := strings.TrimSpace(run("set", "--name", "mine", "--label", "a:b", "--ttl-secs", "3600", made.ID)); got != made.ID {
		t.Errorf("%q", got)
	}
	if s := jsonOf[sandbox.Sandbox](t, shared, "get", made.ID); s.Name != "mine" || s.Labels["a"] != "b" {
		t.Errorf("%+v", s)
	}
	if e := finish(t, shared.outpostCommand("set", made.ID)); e.code != 2 || !strings.Contains(e.stderr, "nothing to change") {
		t.Errorf("%+v", e)
	}
	host := strings.TrimSpace(run("port", "open", made.ID, "8000"))
	if list := run("port", "ls", made.ID); !strings.Contains(list, "8000    "+host) {
		t.Errorf("%s instead of %s", list, host)
	}
	run("port", "close", made.ID, "8000")
	if ports := jsonOf[[]sandbox.Port](t, shared, "port", "ls", made.ID); len(ports) != 0 {
		t.Errorf("%+v", ports)
	}
	run("files", "mkdir", made.ID+":in/deep")
	if list := run("files", "ls", made.ID); !strings.Contains(list, "folder") && !strings.Contains(list, "dir") || !strings.Contains(list, "in") {
		t.Errorf("%s", list)
	}
	run("files", "rm", made.ID+":in")
	if all := jsonOf[[]sandbox.FileInfo](t, shared, "files", "ls", made.ID); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if got := run("whoami"); got != "operator of all namespaces\n" {
		t.Errorf("%q", got)
	}
	if u := jsonOf[sandbox.NamespaceUsage](t, shared, "usage"); u.Sandboxes.Used == 0 || u.Sandboxes.Limit == 0 {
		t.Errorf("%+v", u)
	}
	if v := jsonOf[map[string]string](t, shared, "version"); v["server"] == "" || v["server"] != v["client"] {
		t.Errorf("%v", v)
	}
	if e := finish(t, exec.Command(binary, "version", "--url", "http://127.0.0.1:1", "--token", "x")); e.code != 0 || !strings.Contains(e.stdout, "none answers") {
		t.Errorf("%+v", e)
	}
}

func TestCollectedFilesComeIntoAFolder(t *testing.T) {
	leakCheck(t, shared)
	dir := t.TempDir()
	program := "import os\nos.makedirs('out')\nopen('out/a.txt', 'w').write('a'); open('b.bin', 'wb').write(bytes([0, 255]))\nprint('made')"
	run := func(args ...string) ended {
		return finish(t, shared.outpostCommand(append([]string{"run", "-c", program, "--collect-to", dir}, args...)...))
	}
	holds := func(name, want string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if e := run("--collect", "out/*", "--collect", "b.bin"); e.code != 0 || e.stdout != "made\n" || e.stderr != "" {
		t.Fatalf("%+v", e)
	}
	holds("out/a.txt", "a")
	holds("b.bin", "\x00\xff")
	for _, name := range []string{"out/a.txt", "b.bin"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if e := run("--collect", "b.bin"); e.code != 0 {
		t.Errorf("by its name: %+v", e)
	}
	holds("b.bin", "\x00\xff")
	if e := run("--collect", "out/*"); e.code != 125 || !strings.Contains(e.stderr, "--collect-to") {
		t.Errorf("by a pattern: %+v", e)
	}
	holds("out/a.txt", "mine")
	if e := run("--collect", "nothing"); e.code != 125 || e.stdout != "made\n" || !strings.Contains(e.stderr, "left no file nothing") {
		t.Errorf("%+v", e)
	}
	if e := finish(t, shared.outpostCommand("run", "-c", "print(1)", "--collect", "x", "--collect-to", filepath.Join(dir, "new"))); e.code != 125 || e.stdout != "1\n" {
		t.Errorf("%+v", e)
	}
	if e := finish(t, shared.outpostCommand("run", "-c", "import sys; sys.exit(3)", "--collect", "x", "--collect-to", dir)); e.code != 3 || !strings.Contains(e.stderr, "left no file x") {
		t.Errorf("the program's own code: %+v", e)
	}
	outside := t.TempDir()
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "out")), os.Symlink(outside, filepath.Join(dir, "out"))); err != nil {
		t.Fatal(err)
	}
	if e := run("--collect", "out/a.txt"); e.code != 125 {
		t.Errorf("through a link out of the folder: %+v", e)
	}
}

func TestACommandWaitsOutTheRateLimit(t *testing.T) {
	leakCheck(t, shared)
	k, err := shared.CreateKey(t.Context(), sandbox.KeyRequest{Name: new("slow"), Role: new("read"), Namespace: new("default"), RateLimit: new(100)})
	if err != nil {
		t.Fatal(err)
	}
	defer shared.DeleteKey(t.Context(), k.ID)
	for range 13 { // ten at once, then five in three seconds
		cmd := shared.outpostCommand("whoami", "--token", k.Name+"$"+k.Secret)
		if e := finish(t, cmd); e.code != 0 || e.stdout != "read of default\n" {
			t.Fatalf("%+v", e)
		}
	}
}
