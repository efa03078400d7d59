package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"outpost.run/outpost/client"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/sandbox"
)

// depsServer is a server whose packages come from an index of the test's own; its images are those of the installers.
func depsServer(t *testing.T, images ...string) (*server, *packageIndex) {
	t.Helper()
	onThisHost(t)
	store, err := image.Open(imagetest.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range images {
		if _, err := store.Ensure(t.Context(), ref, nil); err != nil {
			t.Fatal(err)
		}
	}
	store.Close()
	t.Setenv("GONOSUMDB", "*")
	x := newIndex(t)
	return newServer(t, x.flags()...), x
}

const (
	withPip   = "deb:trixie?include=python3,python3-pip"
	withNpm   = "deb:trixie?include=nodejs,npm"
	withGo    = "deb:trixie?include=golang-go"
	withCargo = "deb:trixie?include=cargo,rustc"
)

// execute runs code in a fresh machine.
func (s *server) execute(t *testing.T, language, code string, deps ...string) (sandbox.ExecResult, error) {
	t.Helper()
	return s.Execute(t.Context(), sandbox.ExecuteRequest{Language: &language, Code: &code, Deps: deps, ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(1024), TimeoutMS: new(60_000)}})
}

func (s *server) executed(t *testing.T, language, code string, deps ...string) sandbox.ExecResult {
	t.Helper()
	r, err := s.execute(t, language, code, deps...)
	if err != nil {
		t.Fatalf("%s with %q: %v", language, deps, err)
	}
	return r
}

// greeting is a package that says its version, and has a program.
func greeting(x *packageIndex, version string) {
	x.wheel("greet", version, map[string]string{"greet/__init__.py": "def main(): print('hello from " + version + "')\n",
		"INFO/entry_points.txt": "[console_scripts]\ngreet = greet:main\n"})
}

func TestPythonsDependencies(t *testing.T) {
	s, x := depsServer(t, withPip)
	greeting(x, "1.0.0")
	const code = "import subprocess, greet; greet.main(); print(subprocess.check_output(['greet'], text=True))"
	first := s.executed(t, "python", code, "greet==1.0.0")
	if out := clean(t, first); out != "hello from 1.0.0\nhello from 1.0.0" {
		t.Errorf("it said %q", out)
	}
	if len(first.DepsResolved) != 1 || first.DepsResolved[0] != "greet==1.0.0" {
		t.Errorf("deps_resolved %q", first.DepsResolved)
	}
	for range 3 { // also where an interpreter runs already: it has looked for packages before these were there
		box := s.box(t, sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(1024)}})
		r, err := s.Exec(t.Context(), box.ID, sandbox.ExecRequest{Code: new("import greet; greet.main()"), Deps: []string{"greet==1.0.0"}})
		if err != nil || r.Start != "cold" || r.Stdout != "hello from 1.0.0\n" {
			t.Errorf("in a machine made ahead: %v, started %s, %q %q", err, r.Start, r.Stdout, r.Stderr)
		}
	}
	second := s.executed(t, "python", "import sys\nprint(sys.flags.isolated)\nimport greet\nopen(greet.__file__, 'a')", "greet==1.0.0")
	if !strings.Contains(second.Stderr, "Read-only file system") && !strings.Contains(second.Stderr, "Permission denied") {
		t.Errorf("a program may write into the layer: %s", second.Stderr)
	}
	if got := x.times("/pip/files/greet-1.0.0-py3-none-any.whl"); got != 1 || second.Timings.DepsMS > first.Timings.DepsMS/4 {
		t.Errorf("fetched %d times; %.1f ms at first, %.1f then", got, first.Timings.DepsMS, second.Timings.DepsMS)
	}
	// It is found by an isolated interpreter too, in each preset, and by nobody who did not ask.
	for _, p := range presets {
		r := in(p)
		r.Language, r.Deps, r.Command = new("python"), []string{"greet==1.0.0"}, []string{"python3", "-I", "-c", "import greet; greet.main()"}
		got, err := s.Execute(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if out := clean(t, got); out != "hello from 1.0.0" {
			t.Errorf("%s: %s", p, out)
		}
	}
	if r := s.executed(t, "python", code); r.ExitCode == 0 {
		t.Error("a later exec has it unasked")
	}
	// The time of the program alone counts against its limit, and many who ask at once share one installation.
	greeting(x, "1.1.0")
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			r, err := s.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("python"), Code: new("import greet; greet.main()"), Deps: []string{"greet"}, ResourceLimits: &sandbox.LimitsRequest{TimeoutMS: new(900)}})
			if err != nil || r.TimedOut || len(r.DepsResolved) != 1 || r.DepsResolved[0] != "greet==1.1.0" {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	all.Wait()
	if got := x.times("/pip/files/greet-1.1.0-py3-none-any.whl"); got != 1 {
		t.Errorf("fetched %d times", got)
	}
	greeting(x, "1.2.0") // what was resolved holds for a while; what is asked for exactly is asked for anew
	if r := s.executed(t, "python", "", "greet"); r.DepsResolved[0] != "greet==1.1.0" {
		t.Errorf("%q", r.DepsResolved)
	}
	if r := s.executed(t, "python", "", "greet>=1.1.5"); r.DepsResolved[0] != "greet==1.2.0" {
		t.Errorf("%q", r.DepsResolved)
	}
}

func TestNamespacesShareNoDependencies(t *testing.T) {
	s, x := depsServer(t, withPip)
	greeting(x, "1.0.0")
	for n, namespace := range []string{"one", "two", "one"} {
		other, err := client.New(s.Address(), adminToken, client.WithNamespace(namespace))
		if err != nil {
			t.Fatal(err)
		}
		r, err := other.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("python"), Code: new("import greet; greet.main()"), Deps: []string{"greet==1.0.0"}})
		if err != nil {
			t.Fatal(err)
		}
		clean(t, r)
		if got, want := x.times("/pip/files/greet-1.0.0-py3-none-any.whl"), min(n+1, 2); got != want {
			t.Errorf("after exec %d in %s it was fetched %d times, want %d", n+1, namespace, got, want)
		}
	}
}

func TestDependenciesThatCantBeInstalledSayWhy(t *testing.T) {
	s, x := depsServer(t, withPip)
	greeting(x, "1.0.0")
	greeting(x, "2.0.0")
	x.wheel("needy", "1.0", map[string]string{"INFO/METADATA": "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: not-there\n"})
	x.put("/pip/forged/", []byte(`<a href="../files/forged-1.0-py3-none-any.whl#sha256=`+strings.Repeat("0", 64)+`">x</a>`))
	x.put("/pip/files/forged-1.0-py3-none-any.whl", x.files["/pip/files/greet-1.0.0-py3-none-any.whl"])
	x.put("/pip/astray/", fmt.Appendf(nil, `<a href="http://127.0.0.1:%s/secret/astray-1.0-py3-none-any.whl">x</a>`, portIn(s.Address())))
	for _, tc := range []struct {
		deps []string
		want string // in the installer's words
	}{
		{[]string{"not-there"}, "not-there"},
		{[]string{"greet==3.0"}, "greet==3.0"},
		{[]string{"greet==1.0.0", "greet==2.0.0"}, "conflict"},
		{[]string{"needy"}, "not-there"},
		{[]string{"forged"}, "HASH"},
		{[]string{"astray"}, "502"},
	} {
		_, err := s.execute(t, "python", "print(1)", tc.deps...)
		if sandbox.CodeOf(err) != sandbox.DepsFailed || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tc.want)) {
			t.Errorf("%q: %v", tc.deps, err)
		}
		for _, secret := range []string{indexSecret, x.Listener.Addr().String(), "127.0.0.1/", "/link/", s.dir} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%q: its error tells %s: %v", tc.deps, secret, err)
			}
		}
	}
}

// TestAnInstallerIsHeld: what a package runs while it is installed has no way out but the index, no credentials, no power,
// and what it leaves is harmless.
func TestAnInstallerIsHeld(t *testing.T) {
	s, x := depsServer(t, withPip)
	x.pipFile("hostile", "hostile-1.0.tar.gz", tarred(map[string]string{
		"hostile-1.0/PKG-INFO":       "Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n",
		"hostile-1.0/pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
		"hostile-1.0/backend.py": `
import os, socket, subprocess, sys, zipfile
said = []
def attempt(what, f):
    try: f()
    except Exception: return
    said.append(what)
def write(path): open(path, 'w')
def reach(host, port):
    socket.create_connection((host, port), 3)
secret, port, daemon = '` + indexSecret[4:] + `', ` + portIn(x.URL) + `, ` + portIn(s.Address()) + `
if secret in repr(os.environ) + open('/proc/self/environ').read(): said.append('the secret is in the environment')
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        if secret in open(f'/proc/{pid}/environ').read() + open(f'/proc/{pid}/cmdline').read(): said.append('a process has the secret')
    except OSError: pass
attempt('reached the index itself', lambda: reach('127.0.0.1', port))
attempt('reached the server', lambda: reach('127.0.0.1', daemon))
attempt('reached the world', lambda: reach('8.8.8.8', 53))
attempt('resolved a name', lambda: socket.getaddrinfo('example.com', 80))
attempt('wrote to /usr', lambda: write('/usr/x'))
attempt('wrote to /etc', lambda: write('/etc/x'))
attempt('became root', lambda: os.setuid(0))
attempt('made a device', lambda: os.mknod('/opt/deps/null', 0o20666, os.makedev(1, 3)))
attempt('unshared', lambda: os.unshare(0x10000000))
if os.getuid() == 0: said.append('is root')
subprocess.Popen(['sleep', '600'], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def build_wheel(to, settings=None, metadata=None):
    os.makedirs('/opt/deps/python', exist_ok=True)
    tree = '/opt/deps/python/'
    os.symlink('/etc/shadow', tree + 'shadow'); os.symlink('../../../../../../etc', tree + 'up')
    os.mkfifo(tree + 'fifo'); socket.socket(socket.AF_UNIX).bind(tree + 'socket')
    write(tree + 'setid'); os.chmod(tree + 'setid', 0o6777)
    name = 'hostile-1.0-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(to, name), 'w') as z:
        z.writestr('hostile.py', 'said = ' + repr(said))
        z.writestr('hostile-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n')
        z.writestr('hostile-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        z.writestr('hostile-1.0.dist-info/RECORD', '')
    return name
`}))
	r := s.executed(t, "python", `
import hostile, os, stat
for what in hostile.said: print(what)
at = os.path.dirname(hostile.__file__)
for d, dirs, files in os.walk(at):
    for f in dirs + files:
        m = os.lstat(os.path.join(d, f))
        if m.st_mode & 0o6000 or not (stat.S_ISREG(m.st_mode) or stat.S_ISDIR(m.st_mode) or stat.S_ISLNK(m.st_mode)): print(f, oct(m.st_mode))
        if m.st_uid or m.st_gid: print(f, 'belongs to', m.st_uid, m.st_gid)
try: print(open(at + '/shadow').read())
except OSError: pass
`, "hostile")
	findings(t, r)
	if len(r.DepsResolved) == 0 {
		t.Error("deps_resolved is empty")
	}
}

func portIn(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// TestAnInstallationEndsWithItsLastWaiter, and the machine with it: a client that leaves, a sandbox that is deleted, a
// server that stops.
func TestAnInstallationEndsWithItsLastWaiter(t *testing.T) {
	t.Setenv("OUTPOST_DRAIN_SECS", "1")
	s, x := depsServer(t, withPip)
	greeting(x, "1.0.0")
	const wheel = "/pip/files/greet-1.0.0-py3-none-any.whl"
	hold := make(chan struct{})
	x.hold[wheel] = hold
	defer close(hold)
	made := s.box(t, sandbox.CreateRequest{})
	endsWith(t, s, x, made.ID, func(leave func()) error { leave(); return nil })
	endsWith(t, s, x, made.ID, func(func()) error { return s.Delete(t.Context(), made.ID) })
	made = s.box(t, sandbox.CreateRequest{})
	endsWith(t, s, x, made.ID, func(func()) error { return s.terminate() })
	if out, err := s.leaks(); err != nil {
		t.Errorf("after the server's end: %v\n%s", err, out)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// endsWith begins an installation that has no end by itself, and ends it from outside.
func endsWith(t *testing.T, s *server, x *packageIndex, id string, end func(leave func()) error) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ended := make(chan error, 1)
	go func() {
		_, err := s.Exec(ctx, id, sandbox.ExecRequest{Code: new("1"), Deps: []string{"greet"}})
		ended <- err
	}()
	if got := <-x.arrive; got == "gone" {
		t.Fatal("it ended before")
	}
	if err := end(leave); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the exec has an answer")
	}
	if got := <-x.arrive; got != "gone" { // the proxy has hung up
		t.Error(got)
	}
}

func TestDependenciesForGood(t *testing.T) {
	s, x := depsServer(t, withPip)
	greeting(x, "1.0.0")
	greeting(x, "2.0.0")
	x.wheel("big", "1.0", map[string]string{"big.bin": strings.Repeat("0123456789abcdef", 4<<20/16*12)})
	const code = "import greet, importlib.metadata as m, subprocess; greet.main(); print(m.version('greet'), subprocess.check_output(['greet'], text=True))"
	b := s.box(t, sandbox.CreateRequest{Mode: new("stateful"), ResourceLimits: &sandbox.LimitsRequest{DiskMB: new(32)}})
	run := func(deps ...string) (sandbox.ExecResult, error) {
		return s.Exec(t.Context(), b.ID, sandbox.ExecRequest{Code: new(code), Deps: deps})
	}
	says := func(when, version string, deps ...string) {
		t.Helper()
		r, err := run(deps...)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if out, want := clean(t, r), fmt.Sprintf("hello from %[1]s\n%[1]s hello from %[1]s", version); out != want {
			t.Errorf("%s it said %q, want %q", when, out, want)
		}
	}
	says("installed", "1.0.0", "greet==1.0.0")
	says("later", "1.0.0")
	says("replaced", "2.0.0", "greet==2.0.0")
	if _, err := run("big"); sandbox.CodeOf(err) != sandbox.DiskFull {
		t.Errorf("48 MiB on a disk of 32: %v", err)
	}
	if _, err := s.Stop(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	says("stopped and started", "2.0.0")
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	says("after a kill of the server", "2.0.0")
	says("asked again", "2.0.0", "greet==2.0.0")
}
