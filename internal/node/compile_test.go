package node_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"outpost.run/outpost/internal/compiled"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/internal/node"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// compiling is a node that keeps compiled programs.
type compiling struct {
	*node.Node
	t    *testing.T
	kept *compiled.Store
	dir  string
}

func newCompiling(t *testing.T) *compiling {
	t.Helper()
	now := newInstall(t)
	dir := filepath.Join(now.dir, "compiled")
	var err error
	if now.kept, err = compiled.Open(dir, 256<<20); err != nil {
		t.Fatal(err)
	}
	n := now.open()
	t.Cleanup(func() {
		if err := n.Close(context.Background(), true); err != nil {
			t.Error(err)
		}
		if left := now.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	if _, err := n.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return &compiling{n, t, now.kept, dir}
}

// with is the same for a subtest.
func (c compiling) with(t *testing.T) *compiling { c.t = t; return &c }

// box makes an ephemeral sandbox, which change may make another.
func (c *compiling) box(language string, change func(*service.SandboxSpec)) service.SandboxSpec {
	c.t.Helper()
	spec := service.SandboxSpec{
		ID: sandbox.NewID(sandbox.SandboxPrefix), Namespace: "default", Language: language, Mode: sandbox.Ephemeral,
		Image:  map[string]string{"go": imagetest.Go, "rust": imagetest.Rust}[language],
		Limits: sandbox.Limits{MemoryMB: 512, CPUCores: 2, TimeoutMS: 120_000, DiskMB: 128, Pids: 256}, WorkingDir: "/workspace",
		Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard},
		Network:  sandbox.Network{Egress: "none"}, CreateWait: 5 * time.Minute, Started: true,
	}
	if change != nil {
		change(&spec)
	}
	if _, err := c.Create(c.t.Context(), spec); err != nil {
		c.t.Fatal(err)
	}
	return spec
}

// said is an outcome with what the program said.
type said struct {
	service.ExecOutcome
	stdout, stderr string
	took           time.Duration
}

func (c *compiling) run(in service.SandboxSpec, code string, change func(*service.ExecSpec)) said {
	c.t.Helper()
	e := service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Code: &code, Limits: in.Limits, MaxOutputBytes: 1 << 20}
	if change != nil {
		change(&e)
	}
	var stdout, stderr strings.Builder
	began := time.Now()
	o, err := c.Exec(c.t.Context(), in.ID, e, service.Streams{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		c.t.Fatal(err)
	}
	return said{o, stdout.String(), stderr.String(), time.Since(began)}
}

// TestTheSameProgramAgain: it runs as its binary does bare, and in no more than twenty milliseconds more. The three take turns; the
// times are logged, and judged by the processor's, since the machine runs other tests meanwhile.
func TestTheSameProgramAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	c := newCompiling(t)
	for language, source := range map[string]string{
		"go":   "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(%q) }\n",
		"rust": "fn main() { println!(\"{}\", %q) }\n",
	} {
		t.Run(language, func(t *testing.T) {
			c := c.with(t)
			in := c.box(language, nil)
			root := bareRoot(t, imagetest.Layers(t, in.Image))
			aside := c.box(language, func(s *service.SandboxSpec) { s.Health.Command = []string{"true"} }) // nothing of it is kept
			var first, again, bare, cpu, unkept, nothing []time.Duration
			for i := range 9 {
				word := sandbox.NewID("hello_")
				code := fmt.Sprintf(source, word)
				var a, b said
				if got := c.counts(func() { a, b = c.run(in, code, nil), c.run(in, code, nil) }); got != "HMK" { // however soon the second comes
					t.Fatalf("it counted %q", got)
				}
				for _, o := range []said{a, b} {
					if o.ExitCode != 0 || o.stdout != word+"\n" || o.stderr != "" || o.Start != "cold" {
						t.Fatalf("%+v", o)
					}
				}
				unkept = append(unkept, c.run(aside, code, nil).took)
				nothing = append(nothing, c.run(in, "", func(e *service.ExecSpec) { e.Code, e.Command = nil, []string{"true"} }).took)
				if i == 0 {
					c.binary(filepath.Join(root, "workspace/bare"))
				}
				began := time.Now()
				cmd := exec.Command("/workspace/bare")
				cmd.Dir, cmd.SysProcAttr = "/workspace", &syscall.SysProcAttr{Chroot: root}
				if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "hello_") {
					t.Fatalf("bare: %v: %s", err, out)
				}
				bare = append(bare, time.Since(began))
				first, again = append(first, a.took), append(again, b.took)
				cpu = append(cpu, time.Duration(float64(a.Usage.CPUMS)/b.Usage.CPUMS*1000))
			}
			middle := func(all []time.Duration) time.Duration { slices.SortFunc(all, cmp.Compare); return all[len(all)/2] }
			t.Logf("first %v, where nothing is kept %v; again %v, an exec of true %v; bare %v", middle(first), middle(unkept), middle(again), middle(nothing), middle(bare))
			if ratio := float64(middle(cpu)) / 1000; ratio < 4 {
				t.Errorf("the first run takes only %.1f times the processor time of the second", ratio)
			}
		})
	}
}

// binary writes the program that is kept to a file.
func (c *compiling) binary(to string) {
	c.t.Helper()
	all, err := os.ReadDir(c.dir)
	if err != nil || len(all) == 0 {
		c.t.Fatalf("%v, %v", all, err)
	}
	newest := slices.MaxFunc(all, func(a, b os.DirEntry) int {
		x, err1 := a.Info()
		y, err2 := b.Info()
		if err1 != nil || err2 != nil {
			c.t.Fatal(err1, err2)
		}
		return x.ModTime().Compare(y.ModTime())
	})
	b, err := os.ReadFile(filepath.Join(c.dir, newest.Name()))
	if err == nil {
		err = os.WriteFile(to, b[:len(b)-32], 0o755)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// counts is what a run did to the store: H a hit, M a miss, K a program that is kept from now on.
func (c *compiling) counts(run func()) string {
	before := c.kept.Stats()
	run()
	now := c.kept.Stats()
	for now.Coming > 0 { // it is kept beside the exec
		time.Sleep(time.Millisecond)
		now = c.kept.Stats()
	}
	return strings.Repeat("H", int(now.Hits-before.Hits)) + strings.Repeat("M", int(now.Misses-before.Misses)) + strings.Repeat("K", int(now.Kept-before.Kept))
}

const hi = "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"hi\\n\") }\n"

func TestWhatIsAnotherProgram(t *testing.T) {
	c := newCompiling(t)
	in := c.box("go", nil)
	c.counts(func() { // which waits until they are kept
		c.run(in, hi, nil)
		c.run(in, hi, func(e *service.ExecSpec) { e.Env = [][2]string{{"Y", "9"}, {"Z", "0"}} })
	})
	for name, tc := range map[string]struct {
		box  func(*service.SandboxSpec)
		exec func(*service.ExecSpec)
		code string
		want string // see counts
	}{
		"the same in the same sandbox":    {want: "H"},
		"with arguments and input":        {want: "H", exec: func(e *service.ExecSpec) { e.Args, e.Stdin = []string{"a"}, []byte("b") }},
		"with other limits":               {want: "H", exec: func(e *service.ExecSpec) { e.Limits.MemoryMB, e.Limits.TimeoutMS = 256, 60_000 }},
		"in another sandbox":              {want: "H", box: func(*service.SandboxSpec) {}},
		"whose language the exec names":   {want: "H", exec: func(e *service.ExecSpec) { e.Language = "go" }},
		"in another namespace":            {want: "MK", box: func(s *service.SandboxSpec) { s.Namespace = "other" }},
		"another of the same length":      {want: "MK", code: strings.Replace(hi, "main()", "main ()", 1)[:len(hi)]},
		"with a variable":                 {want: "MK", exec: func(e *service.ExecSpec) { e.Env = [][2]string{{"A", "0"}} }},
		"with variables in another order": {want: "H", exec: func(e *service.ExecSpec) { e.Env = [][2]string{{"Z", "0"}, {"Y", "1"}, {"Y", "9"}} }},
		"with another value of it":        {want: "MK", exec: func(e *service.ExecSpec) { e.Env = [][2]string{{"A", "1"}} }},
		"with a variable of the sandbox":  {want: "MK", box: func(s *service.SandboxSpec) { s.Env = [][2]string{{"A", "2"}} }},
		"as another user":                 {want: "MK", exec: func(e *service.ExecSpec) { e.User = "root" }},
		"elsewhere":                       {want: "MK", exec: func(e *service.ExecSpec) { e.WorkingDir = "/tmp/elsewhere" }},
		"in another preset":               {want: "MK", box: func(s *service.SandboxSpec) { s.Security.Preset = sandbox.Development }},
		"with files": {want: "", exec: func(e *service.ExecSpec) {
			e.Files = []service.File{{Path: "other.go", Content: []byte("package main")}}
		}},
		"in a stateful sandbox":                  {want: "", box: func(s *service.SandboxSpec) { s.Mode = sandbox.Stateful }},
		"where a check of the client's own runs": {want: "", box: func(s *service.SandboxSpec) { s.Health.Command = []string{"true"} }},
		"that doesn't compile":                   {want: "M", code: hi + "nonsense"},
		"that may come from the network":         {want: "M", exec: func(e *service.ExecSpec) { e.Env = [][2]string{{"GOFLAGS", "-race=false"}} }},
		"that is written where no other is":      {want: "M", exec: func(e *service.ExecSpec) { e.WorkingDir = "/usr/bin" }}, // its path, which compilers note, differs each time
	} {
		t.Run(name, func(t *testing.T) {
			c := c.with(t)
			where, code := in, cmp.Or(tc.code, hi)
			if tc.box != nil {
				where = c.box("go", tc.box)
			}
			var o said
			if got := c.counts(func() { o = c.run(where, code, tc.exec) }); got != tc.want {
				t.Errorf("it counted %q, want %q", got, tc.want)
			}
			if fine := o.ExitCode == 0 && o.stdout == "hi\n" && o.stderr == ""; fine == strings.HasSuffix(code, "nonsense") {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestWhatIsKeptHangsOnNoExec: of two namespaces whose execs have all else unlike, the same is kept.
func TestWhatIsKeptHangsOnNoExec(t *testing.T) {
	c := newCompiling(t)
	for language, code := range map[string]string{"go": hi, "rust": "fn main() { println!(\"hi\") }\n"} {
		for _, namespace := range []string{"one", "two"} {
			in := c.box(language, func(s *service.SandboxSpec) { s.Namespace = namespace })
			c.counts(func() {
				c.run(in, code, func(e *service.ExecSpec) {
					e.Args, e.Stdin = []string{namespace}, []byte(namespace)
					if namespace == "two" {
						e.Limits.CPUCores, e.Limits.MemoryMB = 1, 400
					}
				})
			})
		}
		all, err := filepath.Glob(filepath.Join(c.dir, "*"))
		if err != nil || len(all) != 2 {
			t.Fatalf("%v, %v", err, all)
		}
		one, err1 := os.ReadFile(all[0])
		two, err2 := os.ReadFile(all[1])
		if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
			t.Errorf("%s: %v, %v: %d and %d bytes, which differ", language, err1, err2, len(one), len(two))
		}
		for _, name := range all {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// looks prints all that a program can see of how it was started.
const looks = `package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	exe, err := os.Readlink("/proc/self/exe")
	fmt.Println(os.Args[0] == exe, err, os.Args[1:], os.Getpid(), os.Getppid(), os.Environ())
	info, _ := os.Stat(exe)
	st := info.Sys().(*syscall.Stat_t)
	fmt.Println(filepath.Base(exe), info.Mode(), info.Size(), st.Uid, st.Gid, st.Nlink)
	for _, dir := range []string{filepath.Dir(exe), ".", "/tmp", "/workspace", "/proc/self/fd"} {
		info, err := os.Stat(dir)
		entries, err2 := os.ReadDir(dir)
		fmt.Println(dir, info.Mode(), err, err2)
		for _, e := range entries {
			to, _ := os.Readlink(filepath.Join(dir, e.Name()))
			fmt.Print(" ", e.Name(), e.Type(), strings.Split(to, "[")[0])
		}
		fmt.Println()
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	fmt.Println(all, err)
	for _, name := range []string{"mountinfo", "limits", "cmdline", "cgroup", "status"} {
		b, _ := os.ReadFile("/proc/self/" + name)
		lines := strings.SplitAfter(strings.TrimSpace(string(b))+"\n", "\n")
		slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[strings.Index(a, "/")+1:], b[strings.Index(b, "/")+1:]) }) // mounts have no order
		for _, line := range lines {
			if line == "" {
				continue
			}
			if name != "status" || strings.HasPrefix(line, "Sig") || strings.HasPrefix(line, "Shd") || strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "Seccomp") || strings.HasPrefix(line, "Umask") || strings.HasPrefix(line, "Name") {
				fmt.Print(name, " ", line)
			}
		}
	}
	cwd, _ := os.Getwd()
	b, err := os.ReadFile("main.go")
	in, _ := io.ReadAll(os.Stdin)
	fmt.Println(cwd, len(b), err, string(in))
	defer func() { panic(fmt.Sprint(recover())) }()
	var none map[string]int
	none["x"] = 1
}
`

// TestAKeptProgramFindsAllAsACompiledOneDoes compares two runs of one program, where nothing may differ but random names and
// numbers.
func TestAKeptProgramFindsAllAsACompiledOneDoes(t *testing.T) {
	c := newCompiling(t)
	env := [][2]string{{"s", "1"}, {"f", "2"}, {"std", "3"}, {"deps", "4"}, {"line", "5"}, {"d", "6"}, {"settings", "7"}}
	plain := func(s string) string {
		s = regexp.MustCompile(`program-[A-Z2-7]{12}`).ReplaceAllString(s, "program-RANDOM")
		s = regexp.MustCompile(`/m_[0-9a-f]{12}/`).ReplaceAllString(s, "/MACHINE/")
		s = regexp.MustCompile(`exec_[0-9a-f]{12}`).ReplaceAllString(s, "EXEC")
		s = regexp.MustCompile(`([ug]id)=\d{5,}`).ReplaceAllString(s, "$1=HOST")
		s = regexp.MustCompile(`(?m)^mountinfo \d+ \d+ \d+:\d+`).ReplaceAllString(s, "mountinfo")
		s = regexp.MustCompile(`SigQ:\t\d+/`).ReplaceAllString(s, "SigQ:\tQUEUED/") // Go's runtime preempts by signals
		return regexp.MustCompile(`0x[0-9a-f]+`).ReplaceAllString(s, "ADDRESS")
	}
	for _, preset := range []sandbox.Preset{sandbox.Development, sandbox.Standard, sandbox.Maximum} {
		in := c.box("go", func(s *service.SandboxSpec) { s.Security.Preset = preset })
		var both [2]said
		for i, want := range []string{"MK", "H"} {
			if got := c.counts(func() {
				both[i] = c.run(in, looks, func(e *service.ExecSpec) {
					// Variables of the shell that compiles must not get into the program's.
					e.Args, e.Stdin = []string{"a b", "", "*"}, []byte("in\n")
					e.Env = env
				})
			}); got != want {
				t.Errorf("%s: it counted %q, want %q", preset, got, want)
			}
		}
		first, again := strings.Split(plain(both[0].stdout+both[0].stderr), "\n"), strings.Split(plain(both[1].stdout+both[1].stderr), "\n")
		for i := range max(len(first), len(again)) {
			a, b := "", ""
			if i < len(first) {
				a = first[i]
			}
			if i < len(again) {
				b = again[i]
			}
			if a != b {
				t.Errorf("%s, line %d:\n%s\n%s", preset, i, a, b)
			}
		}
		if both[0].ExitCode != 2 || both[1].ExitCode != 2 || len(first) < 40 || !strings.HasPrefix(first[0], "true <nil> [a b  *]") || slices.ContainsFunc(env, func(pair [2]string) bool { return !strings.Contains(first[0], pair[0]+"="+pair[1]) }) {
			t.Errorf("%s: %d, %d\n%s", preset, both[0].ExitCode, both[1].ExitCode, strings.Join(first, "\n"))
		}
	}
}

// TestAProgramCantChangeWhatIsKept: it writes another program where its own was, and tries to have it taken.
func TestAProgramCantChangeWhatIsKept(t *testing.T) {
	c := newCompiling(t)
	in := c.box("go", nil)
	const code = `package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	exe, _ := os.Executable()
	gate := filepath.Join(filepath.Dir(exe), "taken")
	_, err := os.Stat(gate)
	fmt.Println("mine", os.IsNotExist(err))
	b, _ := os.ReadFile(exe)
	for _, err := range []error{os.Remove(exe), os.WriteFile(exe, append(b, []byte("mark")...), 0o755), syscall.Mkfifo(gate, 0o666)} {
		if err != nil {
			fmt.Println(err)
		}
	}
	f, err := os.OpenFile(gate, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	fmt.Println(err)
	time.Sleep(300 * time.Millisecond)
	f.Close()
}
`
	for i, want := range []string{"MK", "H", "H"} {
		var o said
		if got := c.counts(func() { o = c.run(in, code, nil) }); got != want || o.stdout != "mine true\n<nil>\n" {
			t.Errorf("run %d counted %q, want %q: %+v", i, got, want, o)
		}
	}
	all, err := os.ReadDir(c.dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	b, err := os.ReadFile(filepath.Join(c.dir, all[0].Name()))
	if err != nil || !bytes.HasPrefix(b, []byte("\x7fELF")) || bytes.HasSuffix(b[:len(b)-32], []byte("mark")) {
		t.Errorf("%v: what is kept is another program", err)
	}
	if info, err := all[0].Info(); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAKeptProgramEndsAsItDid(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	c := newCompiling(t)
	in := c.box("go", func(s *service.SandboxSpec) { s.Limits.MemoryMB = 1024 })
	in2 := c.box("rust", nil)
	goMain := func(body string) string {
		return "package main\nimport (\"os\"; \"syscall\")\nvar _, _ = os.Exit, syscall.Kill\nfunc main() { " + body + " }"
	}
	for name, tc := range map[string]struct {
		in   service.SandboxSpec
		code string
		want string // each time: exit code, signal, reason, what stderr holds
		runs [2]string
		exec func(*service.ExecSpec)
	}{
		"an exit code":          {in: in, code: goMain("os.Exit(3)"), want: "3  exited"},
		"its own signal":        {in: in, code: goMain("syscall.Kill(os.Getpid(), syscall.SIGTERM); select {}"), want: "143 SIGTERM signaled"},
		"a compile error":       {in: in, code: goMain("undefined()"), want: "1  exited", runs: [2]string{"M", "M"}},
		"too much memory":       {in: in, code: goMain("var a [][]byte; for { b := make([]byte, 1<<24); for i := range b { b[i] = 1 }; a = append(a, b) }"), want: "137 SIGKILL oom_killed"},
		"too much time":         {in: in, code: goMain("for {}"), want: "124 SIGKILL timed_out", exec: func(e *service.ExecSpec) { e.Limits.TimeoutMS = 3000 }},
		"a panic of Rust":       {in: in2, code: "fn main() { panic!(\"boom\") }", want: "101  exited"},
		"an abort of Rust":      {in: in2, code: "fn main() { std::process::abort() }", want: "134 SIGABRT signaled"},
		"a compile error, Rust": {in: in2, code: "fn main() { undefined() }", want: "1  exited", runs: [2]string{"M", "M"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := c.with(t)
			if tc.runs[0] == "" {
				tc.runs = [2]string{"MK", "H"}
			}
			var both [2]said
			for i, want := range tc.runs {
				if got := c.counts(func() { both[i] = c.run(tc.in, tc.code, tc.exec) }); got != want {
					t.Errorf("run %d counted %q, want %q", i, got, want)
				}
				if got := fmt.Sprint(both[i].ExitCode, " ", both[i].Signal, " ", both[i].Reason); got != tc.want {
					t.Errorf("run %d ended with %s, want %s: %s", i, got, tc.want, both[i].stderr)
				}
			}
			number := regexp.MustCompile(`thread 'main' \(\d+\)`)
			if a, b := number.ReplaceAllString(both[0].stderr, ""), number.ReplaceAllString(both[1].stderr, ""); a != b {
				t.Errorf("stderr:\n%s\n%s", a, b)
			}
		})
	}
}

// TestAKeptProgramNeedsRoomOnItsDisk: it lies there as if it had been compiled there.
func TestAKeptProgramNeedsRoomOnItsDisk(t *testing.T) {
	c := newCompiling(t)
	c.run(c.box("go", nil), hi, nil)
	in := c.box("go", func(s *service.SandboxSpec) { s.Limits.DiskMB = 1 })
	code := hi
	_, err := c.Exec(t.Context(), in.ID, service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Code: &code, Limits: in.Limits, MaxOutputBytes: 1 << 20}, service.Streams{Stdout: io.Discard, Stderr: io.Discard})
	if sandbox.CodeOf(err) != sandbox.DiskFull {
		t.Errorf("%v", err)
	}
	if st := c.kept.Stats(); st.Hits != 1 {
		t.Errorf("%+v", st)
	}
}
