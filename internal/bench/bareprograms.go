package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the bare side runs.
const (
	barePython   = "python"
	bareNode     = "node"
	hostPython   = "python of the host"
	hostNode     = "node of the host"
	bareGo       = "go"              // go build with a warm cache, then the program
	bareGoAlone  = "go compile+link" // as a sandbox does it: the program's file alone against the standard library
	bareRust     = "rust"
	bareGoDone   = "go's binary"
	bareRustDone = "rust's binary"
)

// program is how the bare side starts something. Its text is new at each start where each is the compiler's first.
type program struct {
	name   string   // found in the path
	args   []string // before the file
	file   string
	text   func(n int) string
	ofHost bool     // not of the image
	once   string   // the program by which it is prepared: run once, without being measured
	self   []string // instead of name, args and file: what a former program left
}

// The shells' lines become the program that they compile, as in a sandbox.
const (
	goBuild = `cd "${1%/*}" && go build -buildvcs=false -o hello main.go && exec ./hello`
	goAlone = `cd "${1%/*}" && /usr/lib/go/pkg/tool/*/compile -p main -complete -nolocalimports -importcfg /var/cache/go-build/importcfg -pack -o main.a main.go &&
GOROOT=/usr/lib/go /usr/lib/go/pkg/tool/*/link -importcfg /var/cache/go-build/importcfg -o hello main.a && exec ./hello`
	rustc = `cd "${1%/*}" && rustc --edition 2021 --crate-name main -o hello main.rs && exec ./hello`
)

var programs = map[string]program{
	barePython:   {name: "python3", file: "main.py", text: pythonText},
	bareNode:     {name: "node", file: "main.js", text: nodeText},
	hostPython:   {name: "python3", file: "main.py", text: pythonText, ofHost: true},
	hostNode:     {name: "node", file: "main.js", text: nodeText, ofHost: true},
	bareGo:       {name: "sh", args: []string{"-c", goBuild, "go"}, file: "main.go", text: goText, once: bareGo},
	bareGoAlone:  {name: "sh", args: []string{"-c", goAlone, "go"}, file: "main.go", text: goText},
	bareRust:     {name: "sh", args: []string{"-c", rustc, "rust"}, file: "main.rs", text: rustText},
	bareGoDone:   {self: []string{"/tmp/bare-go/hello"}, once: bareGo},
	bareRustDone: {self: []string{"/tmp/bare-rust/hello"}, once: bareRust},
}

// The programs print a number, so that none is another's answer.
func pythonText(n int) string { return fmt.Sprintf("print(%d)\n", n) }
func nodeText(n int) string   { return fmt.Sprintf("console.log(%d)\n", n) }
func goText(n int) string {
	return fmt.Sprintf("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(%d) }\n", n)
}
func rustText(n int) string { return fmt.Sprintf("fn main() { println!(\"{}\", %d); }\n", n) }

// run runs a program of a plan.
func (r *Roots) run(ctx context.Context, b BareRun) (Sample, error) {
	p, ok := programs[b.Program]
	if !ok {
		return Sample{}, fmt.Errorf("there is no such program")
	}
	at := &root{dir: "/", prepared: map[string]bool{}}
	if !p.ofHost {
		var err error
		if at, err = r.of(b.Image); err != nil {
			return Sample{}, err
		}
	}
	if p.once != "" && !at.prepared[p.once] {
		if _, err := r.each(ctx, at, p.once, Plan{Clients: 1, Count: 1}); err != nil {
			return Sample{}, err
		}
		at.prepared[p.once] = true
	}
	return r.each(ctx, at, b.Program, b.Plan)
}

// each runs the program of that name by the plan; what is to be written is written before it is due.
func (r *Roots) each(ctx context.Context, at *root, name string, plan Plan) (Sample, error) {
	p := programs[name]
	if p.self != nil {
		return plan.Run(ctx, func(ctx context.Context) error { return r.start(at, p.self, "") })
	}
	r.number++
	folder := filepath.Join(at.dir, "tmp", "bare-"+strings.Fields(name)[0])
	if p.ofHost {
		folder = filepath.Join(r.dir, "host")
	}
	file := filepath.Join(folder, p.file)
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(file, []byte(p.text(r.number)), 0o644)); err != nil {
		return Sample{}, err
	}
	exe, err := find(at.dir, p)
	if err != nil {
		return Sample{}, err
	}
	inside := file
	if !p.ofHost {
		inside = strings.TrimPrefix(file, at.dir)
	}
	argv := append(append([]string{exe}, p.args...), inside)
	compiled := p.name == "sh"
	return plan.Run(ctx, func(ctx context.Context) error {
		err := r.start(at, argv, strconv.Itoa(r.number))
		if compiled && err == nil && plan.Clients == 1 { // the next is a new program to its compiler
			r.number++
			err = os.WriteFile(file, []byte(p.text(r.number)), 0o644)
		}
		return err
	})
}

// path is that of programs in a sandbox.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// find gives the program's path below the root. The host's own may be a script that chooses one: then the one chosen.
func find(root string, p program) (string, error) {
	if p.ofHost {
		ask := map[string][]string{"python3": {"-c", "import sys; print(sys.executable)"}, "node": {"-p", "process.execPath"}}[p.name]
		out, err := exec.Command(p.name, ask...).Output()
		return strings.TrimSpace(string(out)), err
	}
	for _, dir := range strings.Split(path, ":") {
		if _, err := os.Lstat(filepath.Join(root, dir, p.name)); err == nil {
			return filepath.Join(dir, p.name), nil
		}
	}
	return "", fmt.Errorf("the image has no %s", p.name)
}

// start runs one program to its end; it must say want, or with "" anything. There is no more between the call and the
// program than clone, exec and a pipe: what os/exec does beside them (1 ms) is not what bare costs.
func (r *Roots) start(at *root, argv []string, want string) error {
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	defer from.Close()
	attr := &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{r.null.Fd(), to.Fd(), to.Fd()},
		Env: []string{"PATH=" + path, "HOME=/tmp", "USER=root", "LOGNAME=root", "LANG=C.UTF-8"},
	}
	if at.dir != "/" {
		attr.Sys = &syscall.SysProcAttr{Chroot: at.dir}
	}
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	to.Close() // the child's end alone holds it open
	if err != nil {
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	said, err := io.ReadAll(from) // not by a blocking read: Go's scheduler would watch over that one, busily
	status, wrong := waitFor(pid)
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	if told := strings.TrimSpace(string(said)); status != 0 || told != cmp.Or(want, told) {
		return fmt.Errorf("%s ended with %#x: %s", strings.Join(argv, " "), uint32(status), said)
	}
	return nil
}

func waitFor(pid int) (status unix.WaitStatus, err error) {
	for {
		if _, err = unix.Wait4(pid, &status, 0, nil); !errors.Is(err, unix.EINTR) {
			return status, err
		}
	}
}
