package node_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/enginetest"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/internal/node"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// started is a node of its own installation, closed with nothing left at the end of the test.
func started(t *testing.T) (*install, *node.Node) {
	t.Helper()
	i := newInstall(t)
	n := i.open()
	t.Cleanup(func() {
		if err := n.Close(context.WithoutCancel(t.Context()), true); err != nil {
			t.Error(err)
		}
		if left := i.left(); len(left) > 0 {
			t.Errorf("left on the host: %v", left)
		}
	})
	if _, err := n.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return i, n
}

func spec(mode sandbox.Mode) service.SandboxSpec {
	return service.SandboxSpec{
		ID: sandbox.NewID(sandbox.SandboxPrefix), Namespace: "default", Language: "bash", Image: imagetest.Python, Mode: mode,
		Limits: enginetest.Limits, WorkingDir: "/workspace", Network: sandbox.Network{Egress: "none"}, Started: true,
		Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard},
	}
}

func create(t *testing.T, n service.Runtime, mode sandbox.Mode) string {
	t.Helper()
	s := spec(mode)
	if _, err := n.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// begun is closed by the first word of a program.
type begun struct {
	once sync.Once
	said chan struct{}
}

func (b *begun) Write(p []byte) (int, error) {
	b.once.Do(func() { close(b.said) })
	return len(p), nil
}

// run runs bash code; said, unless nil, is closed when it has printed something.
func run(ctx context.Context, n service.Runtime, id, code string, said chan struct{}) (service.ExecOutcome, error) {
	if said == nil {
		said = make(chan struct{})
	}
	out := &begun{said: said}
	return n.Exec(ctx, id, service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Code: &code, Limits: enginetest.Limits, MaxOutputBytes: 1 << 20},
		service.Streams{Stdout: out, Stderr: out})
}

// until waits for what comes by itself.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

func TestTheSweepTakesWhatHasNoOwnerAndSparesTheRest(t *testing.T) {
	i, n := started(t)
	owned := create(t, n, sandbox.Stateful)
	template := create(t, n, sandbox.Ephemeral)
	before := i.left()
	if len(before) != 2 {
		t.Fatalf("two sandboxes are there, on the host are %v", before)
	}
	orphan := enginetest.Spec(imagetest.Layers(t, imagetest.Python))
	m, err := i.engine.Start(t.Context(), orphan)
	if err != nil {
		t.Fatal(err)
	}
	for _, half := range []string{"run/m_aaaaaaaaaaaa", "run/m_bbbbbbbbbbbb/d"} { // of a daemon that died making them
		if err := os.MkdirAll(filepath.Join(i.dir, half), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(i.dir, "disks/m_cccccccccccc.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.Sweep(t.Context())
	if left := i.left(); !slices.Equal(left, before) {
		t.Errorf("after the sweep are there %v, want %v", left, before)
	}
	until(t, "the orphan's processes are gone", func() bool {
		select {
		case <-m.Dead():
			return true
		default:
			return false
		}
	})
	for _, id := range []string{owned, template} {
		if o, err := run(t.Context(), n, id, "echo lives", nil); err != nil || o.StdoutBytes != 6 {
			t.Errorf("%s: %+v, %v", id, o, err)
		}
	}
}

func TestAStatefulSandboxWhoseMachineDiesIsLost(t *testing.T) {
	i, n := started(t)
	id := create(t, n, sandbox.Stateful)
	said, ended := make(chan struct{}), make(chan error)
	go func() {
		_, err := run(t.Context(), n, id, "echo x; sleep 600", said)
		ended <- err
	}()
	<-said
	handles, err := i.engine.List(t.Context())
	if err != nil || len(handles) != 1 {
		t.Fatal(handles, err)
	}
	for _, pid := range agents(t, i, handles[0]) {
		_ = unix.Kill(pid, unix.SIGKILL) // the reaper goes with the agent
	}
	if err := <-ended; sandbox.CodeOf(err) != sandbox.Lost {
		t.Errorf("the exec under way: %v", err)
	}
	until(t, "the sandbox is lost", func() bool {
		state, err := n.Inspect(t.Context(), id)
		return err == nil && state.Status == sandbox.LostNow
	})
	if _, err := run(t.Context(), n, id, "true", nil); sandbox.CodeOf(err) != sandbox.Lost {
		t.Errorf("an exec after it: %v", err)
	}
	until(t, "nothing of it runs, and its files are there", func() bool {
		_, err := os.Stat(filepath.Join(i.dir, "disks", handles[0].ID+".img"))
		return err == nil && !groupOf(t, i, handles[0]).Exists()
	})
	n.Sweep(t.Context())
	if left, err := i.engine.List(t.Context()); err != nil || len(left) != 1 {
		t.Errorf("after a sweep: %v, %v", left, err)
	}
	if err := n.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
	until(t, "nothing of it is left", func() bool { return len(i.left()) == 0 })
}

func groupOf(t *testing.T, i *install, h engine.Handle) host.Cgroup {
	t.Helper()
	groups, err := host.FindHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	return groups.Group("outpost-" + i.id()).Child(h.ID)
}

// agents are the processes of a machine's agent.
func agents(t *testing.T, i *install, h engine.Handle) []int {
	t.Helper()
	pids := groupOf(t, i, h).Child("agent").Processes()
	if len(pids) == 0 {
		t.Fatal("the machine has no agent")
	}
	return pids
}

// TestAMachineInheritsNothing: a descriptor that the daemon's own starter left open must not be handed on.
func TestAMachineInheritsNothing(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	left, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", pipe[1]))
	if err != nil {
		t.Fatal(err)
	}
	i, n := started(t)
	create(t, n, sandbox.Stateful)
	handles, err := i.engine.List(t.Context())
	if err != nil || len(handles) != 1 {
		t.Fatal(handles, err)
	}
	for _, pid := range agents(t, i, handles[0]) {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Log(dir, err) // the reaper has closed all
		}
		for _, f := range files {
			if to, _ := os.Readlink(filepath.Join(dir, f.Name())); to == left {
				t.Errorf("process %d has %s", pid, to)
			}
		}
	}
}

func TestAPipeThatEndsEndsItsCalls(t *testing.T) {
	_, n := started(t)
	client, served := piped(t, n)
	id := create(t, client, sandbox.Stateful)
	said, ended := make(chan struct{}), make(chan error)
	go func() {
		_, err := run(t.Context(), client, id, "echo x; exec sleep 600", said)
		ended <- err
	}()
	<-said
	if err := client.Hangup(); err != nil {
		t.Error(err)
	}
	if err := <-ended; sandbox.CodeOf(err) != sandbox.Lost {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-served; err != nil { // and so the program's end was waited for
		t.Error(err)
	}
	o, err := run(t.Context(), n, id, "grep -qsx sleep /proc/[0-9]*/comm", nil)
	if err != nil || o.ExitCode != 1 { // 0: found
		t.Errorf("what the call ran is still there: %+v, %v", o, err)
	}
	if _, err := client.Inspect(t.Context(), id); sandbox.CodeOf(err) != sandbox.Lost {
		t.Errorf("a call after it: %v", err)
	}
}

// TestManyAtOnce creates, uses and deletes sandboxes of both modes side by side, some while programs run in them, with
// the sweep passing all the time.
func TestManyAtOnce(t *testing.T) {
	i, n := started(t)
	if o, err := run(t.Context(), n, create(t, n, sandbox.Ephemeral), "true", nil); err != nil || o.ExitCode != 0 { // images are mounted once
		t.Fatal(o, err)
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	sweeping, stop := context.WithCancel(t.Context())
	var sweeper, all sync.WaitGroup
	sweeper.Go(func() {
		for sweeping.Err() == nil {
			n.Sweep(t.Context())
		}
	})
	turn := make(chan struct{}, 6)
	for k := range 20 {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			oneLife(t, n, k)
		})
	}
	all.Wait()
	stop()
	sweeper.Wait()
	until(t, "only the first sandbox is left", func() bool { return len(i.left()) == 0 })
	until(t, "no goroutine and no file of them is left", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}

// oneLife is that of sandbox k: two programs at once, and for every other one the end while they run.
func oneLife(t *testing.T, n *node.Node, k int) {
	s := spec([]sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful}[k/2%2])
	if _, err := n.Create(t.Context(), s); err != nil {
		t.Error(err)
		return
	}
	code, want := "echo x", sandbox.Exited
	if k%2 == 1 {
		code, want = "echo x; sleep 600", sandbox.Cancelled
	}
	var both sync.WaitGroup
	var said [2]chan struct{}
	for p := range said {
		said[p] = make(chan struct{})
		both.Go(func() {
			o, err := run(t.Context(), n, s.ID, code, said[p])
			if err != nil || o.Reason != want || o.StdoutBytes != 2 {
				t.Errorf("%s %q: %+v, %v", s.Mode, code, o, err)
			}
			if o.StdoutBytes == 0 {
				close(said[p])
			}
		})
	}
	for _, c := range said {
		<-c
	}
	if want == sandbox.Exited {
		both.Wait()
	}
	if err := n.Delete(t.Context(), s.ID); err != nil {
		t.Error(err)
	}
	both.Wait()
}

// openFiles counts this process's files.
func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestAStartThatMeetsTheDeathOfTheMachine: whoever starts a sandbox whose machine dies at that moment gets a machine, and
// keeps it.
func TestAStartThatMeetsTheDeathOfTheMachine(t *testing.T) {
	i, n := started(t)
	id := create(t, n, sandbox.Stateful)
	for round := range 10 {
		handles, err := i.engine.List(t.Context())
		if err != nil || len(handles) != 1 {
			t.Fatal(handles, err)
		}
		for _, pid := range agents(t, i, handles[0]) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if _, err := n.Start(t.Context(), id); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Wait()
		until(t, "the sandbox runs", func() bool {
			if _, err := n.Start(t.Context(), id); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			o, err := run(t.Context(), n, id, "true", nil)
			return err == nil && o.ExitCode == 0
		})
	}
}
