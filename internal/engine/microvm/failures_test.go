package microvm_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/enginetest"
	"outpost.run/outpost/internal/engine/microvm"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/sandbox"
)

// processes are the monitor's of a machine.
func (i *install) processes(id string) []int {
	groups, err := host.FindHierarchies()
	if err != nil {
		i.t.Fatal(err)
	}
	return groups.Group("outpost-" + i.Installation + "-vm").Child(id).Processes()
}

func (i *install) leavesNothing(e *microvm.Engine) {
	i.t.Helper()
	if left, err := e.List(context.Background()); err != nil || len(left) > 0 {
		i.t.Errorf("left on the host: %v (%v)", left, err)
	}
	if held, err := microvm.FindHeld(i.DataDir, i.Installation); err != nil || len(held) > 0 {
		i.t.Errorf("held on the host: %+v (%v)", held, err)
	}
}

func TestAMonitorThatIsKilledLosesItsExecAndNothingStays(t *testing.T) {
	in := newInstall(t, realMonitor(t))
	e := in.open()
	layers := imagetest.Layers(t, imagetest.Python)
	m, err := e.Start(t.Context(), enginetest.Spec(layers))
	if err != nil {
		t.Fatal(err)
	}
	x, err := m.Park(t.Context(), engine.ExecSpec{ID: "exec_that_is_lost", User: "sandbox", Limits: enginetest.Limits})
	if err != nil {
		t.Fatal(err)
	}
	code, out := "import time; print('runs', flush=True); time.sleep(300)", &bytes.Buffer{}
	began := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		_, _, err := x.Run(agent.Run{Interpreter: []string{"python3"}, FileName: "main.py", Code: &code, Dir: "/workspace", MaxOutput: 1 << 20},
			agent.Feed{Stdout: out, Stderr: out, Started: func() { close(began) }, Exited: func(agent.Exit) {}})
		ended <- err
	}()
	<-began
	pids := in.processes(m.Handle().ID)
	if len(pids) != 1 {
		t.Fatalf("the machine has processes %v, want its monitor", pids)
	}
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if sandbox.CodeOf(err) != sandbox.Lost {
			t.Errorf("the exec ended with %v, want %s", err, sandbox.Lost)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the exec waits for a guest that is gone")
	}
	<-m.Dead()
	x.Close()
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	in.leavesNothing(e)
}

func TestAGuestThatDoesNotComeUpSaysWhyAndLeavesNothing(t *testing.T) {
	in := newInstall(t, realMonitor(t))
	system := in.System
	in.System = func(ctx context.Context) (microvm.System, error) {
		s, err := system(ctx)
		s.Initrd = filepath.Join(in.DataDir, "no-initrd")
		if err == nil {
			err = os.WriteFile(s.Initrd, bytes.Repeat([]byte("x"), 4096), 0o644)
		}
		return s, err
	}
	e := in.open()
	_, err := e.Start(t.Context(), enginetest.Spec(imagetest.Layers(t, imagetest.Python)))
	if err == nil || sandbox.CodeOf(err) != sandbox.Internal || !strings.Contains(err.Error(), "panic") {
		t.Errorf("a guest without an init: %v, want its console's last words", err)
	}
	in.leavesNothing(e)
}

func TestAKilledDaemonsHalfMadeMachineIsRemoved(t *testing.T) {
	in := newInstall(t, realMonitor(t))
	e := in.open()
	m, err := e.Start(t.Context(), enginetest.Spec(imagetest.Layers(t, imagetest.Python)))
	if err != nil {
		t.Fatal(err)
	}
	next := in.open() // as after a kill -9: it knows of nothing but what lies on the host
	for _, name := range []string{"machine.json"} {
		if err := os.Remove(filepath.Join(in.DataDir, "vms", m.Handle().ID, name)); err != nil {
			t.Fatal(err)
		}
	}
	handles, err := next.List(t.Context())
	if err != nil || len(handles) != 1 {
		t.Fatalf("the next daemon sees %v (%v)", handles, err)
	}
	if err := next.Remove(t.Context(), handles[0]); err != nil {
		t.Fatal(err)
	}
	<-m.Dead()
	in.leavesNothing(next)
}
