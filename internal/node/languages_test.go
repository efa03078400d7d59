package node_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/compiled"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// hello is a program that no cache has seen.
func hello() string {
	return fmt.Sprintf("package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(%q) }\n", sandbox.NewID("hello_"))
}

// TestGoCompilesAsFastAsBare: a program's first run takes no more than 1.3 times of the same compiler's on the host, which
// has the same standard library compiled in its cache. The two take turns, on one processor each. Processor time is
// compared, since the machine runs other tests meanwhile; on an idle one the times of the clock are as good.
func TestGoCompilesAsFastAsBare(t *testing.T) {
	if testing.Short() {
		t.Skip("thirty compilations")
	}
	now := newInstall(t)
	var err error
	if now.kept, err = compiled.Open(filepath.Join(now.dir, "compiled"), 256<<20); err != nil { // to hand over takes its time, too
		t.Fatal(err)
	}
	n := now.open()
	defer func() {
		if err := n.Close(t.Context(), true); err != nil {
			t.Error(err)
		}
	}()
	if _, err := n.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	limits := sandbox.Limits{MemoryMB: 512, CPUCores: 1, TimeoutMS: 60_000, DiskMB: 64, Pids: 256}
	spec := service.SandboxSpec{
		ID: sandbox.NewID(sandbox.SandboxPrefix), Namespace: "default", Language: "go", Image: imagetest.Go, Mode: sandbox.Ephemeral, Limits: limits,
		WorkingDir: "/workspace", Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard},
		Network: sandbox.Network{Egress: "none"}, CreateWait: 5 * time.Minute, Started: true,
	}
	if _, err := n.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	type cost struct{ cpu, clock time.Duration }
	inside := func() cost {
		began, code := time.Now(), hello()
		var out strings.Builder
		o, err := n.Exec(t.Context(), spec.ID, service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Code: &code, Limits: limits, MaxOutputBytes: 1 << 20},
			service.Streams{Stdout: &out, Stderr: &out})
		if err != nil || o.ExitCode != 0 || !strings.HasPrefix(out.String(), "hello_") {
			t.Fatalf("%v, %+v, %s", err, o, out.String())
		}
		return cost{time.Duration(o.Usage.CPUMS * float64(time.Millisecond)), time.Since(began)}
	}
	root := bareRoot(t, imagetest.Layers(t, imagetest.Go))
	bare := func() cost {
		began := time.Now()
		if err := os.WriteFile(filepath.Join(root, "workspace/main.go"), []byte(hello()), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/usr/bin/taskset", "-c", "0", "/usr/bin/go", "run", "main.go")
		cmd.Dir, cmd.Env = "/workspace", []string{"PATH=/usr/bin:/bin", "HOME=/home/sandbox"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "hello_") {
			t.Fatalf("bare: %v: %s", err, out)
		}
		return cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(began)}
	}
	var in, out []cost
	for range 15 {
		in, out = append(in, inside()), append(out, bare())
	}
	middle := func(all []cost, of func(cost) time.Duration) time.Duration {
		slices.SortFunc(all, func(a, b cost) int { return cmp.Compare(of(a), of(b)) })
		return of(all[len(all)/2])
	}
	clock, cpu := func(c cost) time.Duration { return c.clock }, func(c cost) time.Duration { return c.cpu }
	t.Logf("by the clock: inside %v, bare %v", middle(in, clock), middle(out, clock))
	if a, b := middle(in, cpu), middle(out, cpu); float64(a) > 1.3*float64(b) {
		t.Errorf("processor time: inside %v, bare %v: %.2f times", a, b, float64(a)/float64(b))
	} else {
		t.Logf("processor time: inside %v, bare %v: %.2f times", a, b, float64(a)/float64(b))
	}
}

// bareRoot mounts an image, writable, for programs of the host.
func bareRoot(t *testing.T, layers []string) string {
	t.Helper()
	if err := host.CheckPrivateMounts(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "outpost-bare-")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bare", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		} else {
			_ = os.Remove(dir)
		}
	})
	kernel := host.New()
	attach := func(name string, tree *os.File, err error) {
		if err == nil {
			err = os.Mkdir(filepath.Join(dir, name), 0o755)
		}
		if err == nil {
			err = kernel.Attach(tree, filepath.Join(dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var lowers []string
	for i, layer := range layers {
		tree, err := kernel.MountImage(layer)
		attach(fmt.Sprint("l", i), tree, err)
		lowers = append(lowers, fmt.Sprint("l", i))
	}
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := kernel.Overlay(dir, lowers, "upper", "work")
	attach("root", tree, err)
	root := filepath.Join(dir, "root")
	for place, kind := range map[string]string{"dev": "tmpfs", "proc": "proc"} {
		tree, err := host.FsMount(kind, "", 0)
		if err == nil {
			err = kernel.Attach(tree, filepath.Join(root, place))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	return root
}
