package container_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/engine/enginetest"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/hosttest"
	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/image/imagetest"
)

// TestMain enters a mount namespace of its own: nothing here may mount in the host's.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		if err := host.EnterPrivateMounts(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// needs skips where the host can't run the engine, with the reason that Probe gives.
func needs(t *testing.T) {
	t.Helper()
	for _, c := range container.Probe(t.Context()).Checks {
		if c.Required && !c.OK {
			t.Skipf("%s: %s; %s", c.Name, c.Found, c.Mend)
		}
	}
}

// install is one installation of an engine, with a data directory on a disk.
type install struct {
	container.Options
	t *testing.T
}

func newInstall(t *testing.T) *install {
	t.Helper()
	needs(t)
	base := "/var/tmp"
	if dir := os.Getenv("OUTPOST_TEST_DATA"); dir != "" {
		base = dir
	}
	dir, err := os.MkdirTemp(base, "outpost-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing is mounted there but in our own namespace, and every case checks that it is gone
	id := "test" + dir[len(dir)-6:]
	if err := os.WriteFile(dir+"/installation", []byte(id), 0o600); err != nil {
		t.Fatal(err)
	}
	return &install{container.Options{Kernel: host.New(), DataDir: dir, Installation: id}, t}
}

// open is a daemon's start.
func (i *install) open() *container.Engine {
	i.t.Helper()
	e, err := container.Open(i.Options)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(e.Close)
	return e
}

func TestContainerEngine(t *testing.T) { runSuite(t, false) }

// TestContainerEngineThatMustAttachOnTheHost does on any kernel what those before 6.15 need.
func TestContainerEngineThatMustAttachOnTheHost(t *testing.T) {
	if testing.Short() || !host.CanOverlayDetached() {
		t.Skip("TestContainerEngine does so on kernels that must, in make test-kernels")
	}
	runSuite(t, true)
}

func runSuite(t *testing.T, attach bool) {
	needs(t)
	layers := imagetest.Layers(t, imagetest.Python)
	var now *install
	enginetest.Run(t, enginetest.Subject{
		Open:   func(t *testing.T) engine.Engine { now = newInstall(t); now.Attach = attach; return now.open() },
		Reopen: func(*testing.T) engine.Engine { return now.open() },
		Layers: layers,
	})
}

// TestStartDiesCleanAtEveryCall lets the first kernel call of Start go wrong, then the second, and so on until none does.
func TestStartDiesCleanAtEveryCall(t *testing.T) {
	needs(t)
	layers := imagetest.Layers(t, imagetest.Python)
	for _, how := range []hosttest.How{hosttest.Fail, hosttest.Crash} {
		for _, kind := range []string{"ephemeral", "stateful", "on a blank"} {
			t.Run(fmt.Sprintf("%s, %s", how, kind), func(t *testing.T) {
				in := newInstall(t)
				for n := 1; ; n++ {
					if dieAt(t, in, n, how, kind, layers) {
						if n-1 < 10 {
							t.Errorf("only %d kernel calls were seen: some go past the seam", n-1)
						}
						return
					}
				}
			})
		}
	}
}

// dieAt lets call n of making and stopping a machine go wrong; true if there were fewer calls.
func dieAt(t *testing.T, in *install, n int, how hosttest.How, kind string, layers []string) bool {
	calm := in.open() // what is called to open an engine is not what is tested
	calm.Close()
	k := hosttest.New(0, how)
	in.Kernel = k.Kernel
	e := in.open()
	in.Kernel = host.New()
	k.Arm(n)
	spec := enginetest.Spec(layers)
	spec.Stateful = kind == "stateful"
	var err error
	if kind == "on a blank" {
		spec.Blank, err = e.Blank(t.Context(), spec.ID, spec.Limits.DiskMB)
	}
	if err == nil {
		var m engine.Machine
		if m, err = e.Start(t.Context(), spec); err == nil {
			err = m.Stop(t.Context())
		}
	}
	call, hit := k.Hit()
	if hit && err == nil && call != "detach" { // taking a helper mount off may fail: the end takes it off again
		t.Errorf("call %d (%s) went wrong and nobody said so", n, call)
	}
	after := in.open() // a new daemon sweeps
	if how == hosttest.Crash {
		handles, err := after.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range handles {
			if err := after.Remove(t.Context(), h); err != nil {
				t.Errorf("call %d (%s): sweep: %v", n, call, err)
			}
		}
	}
	if left, err := after.List(context.WithoutCancel(t.Context())); err != nil || len(left) > 0 {
		t.Errorf("call %d (%s) %s and left %v (%v)", n, call, how, left, err)
	}
	return !hit
}

// TestStartingAgainLosesNoFilesAtAnyCallOnTheHost lets each kernel call of a second start go wrong: the next daemon must find the
// machine's files and start it.
func TestStartingAgainLosesNoFilesAtAnyCallOnTheHost(t *testing.T) {
	needs(t)
	layers := imagetest.Layers(t, imagetest.Python)
	for _, how := range []hosttest.How{hosttest.Fail, hosttest.Crash} {
		t.Run(string(how), func(t *testing.T) {
			in := newInstall(t)
			spec := enginetest.Spec(layers)
			spec.Stateful = true
			m, err := in.open().Start(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			enginetest.Leave(t, m, "a file")
			if err := m.Halt(t.Context()); err != nil {
				t.Fatal(err)
			}
			spec.Again = true
			for n := 1; ; n++ {
				calm := in.open() // what is called to open an engine is not what is tested
				calm.Close()
				k := hosttest.New(0, how)
				in.Kernel = k.Kernel
				e := in.open()
				in.Kernel = host.New()
				k.Arm(n)
				dying, err := e.Start(t.Context(), spec)
				call, hit := k.Hit()
				if err == nil {
					if err := dying.Halt(t.Context()); err != nil && !hit {
						t.Fatal(err)
					}
				}
				after := in.open()
				if err := after.Halt(t.Context(), m.Handle()); err != nil {
					t.Fatalf("call %d (%s): %v", n, call, err)
				}
				living, err := after.Start(t.Context(), spec)
				if err != nil {
					t.Fatalf("after call %d (%s) %s: %v", n, call, how, err)
				}
				enginetest.Finds(t, living, "a file")
				if err := living.Halt(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !hit {
					if n < 10 {
						t.Errorf("only %d kernel calls were seen: some go past the seam", n-1)
					}
					if err := after.Remove(t.Context(), m.Handle()); err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
}

// TestAMachineThatRanNothingLeavesNothingInTheDaemon: its first process was parked for a program that never came.
func TestAMachineThatRanNothingLeavesNothingInTheDaemon(t *testing.T) {
	needs(t)
	layers := imagetest.Layers(t, imagetest.Python)
	e := newInstall(t).open()
	once := func(stateful bool) {
		spec := enginetest.Spec(layers)
		spec.Stateful = stateful
		m, err := e.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	held := func() (files, goroutines int) {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names), runtime.NumGoroutine()
	}
	once(false) // the image's layers are mounted
	files, goroutines := held()
	for i := range 8 {
		once(i%2 == 1)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		f, g := held()
		if f <= files && g <= goroutines {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after 8 machines there are %d files and %d goroutines, before %d and %d", f, g, files, goroutines)
		}
	}
}

// TestIsolationSaysWhatIsMissing leaves one protection out at a time: it must be missed, and no other.
func TestIsolationSaysWhatIsMissing(t *testing.T) {
	needs(t)
	layers := imagetest.Layers(t, imagetest.Python)
	for _, broken := range []string{"seccomp", "memory_limit", "cpu_limit", "pids_limit", "rlimits", "cgroup_namespace", "capabilities_dropped"} {
		t.Run(broken, func(t *testing.T) {
			in := newInstall(t)
			in.Break = broken
			m, err := in.open().Start(t.Context(), enginetest.Spec(layers))
			if err != nil {
				t.Fatal(err)
			}
			i := m.Isolation()
			if !slices.Equal(i.Missing, []string{broken}) || slices.Contains(i.Effective, broken) || !slices.Contains(i.Requested, broken) {
				t.Errorf("with %s left out isolation says %+v", broken, i)
			}
			if err := m.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEgressIsReadFromTheKernel: what a machine with egress has beside its loopback is the one link that ends in the
// daemon, and it has no other way out.
func TestEgressIsReadFromTheKernel(t *testing.T) {
	needs(t)
	if err := netns.ProbeTun(); err != nil {
		t.Skip(err)
	}
	spec := enginetest.Spec(imagetest.Layers(t, imagetest.Python))
	spec.Egress = "public"
	m, err := newInstall(t).open().Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop(context.WithoutCancel(t.Context())) //nolint:errcheck // the install's end looks
	network, err := m.Network()
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	says := func(when string, missing ...string) {
		t.Helper()
		i := m.Isolation()
		if !slices.Equal(i.Missing, missing) || slices.Contains(i.Requested, "no_egress") || !slices.Contains(i.Requested, "egress_filtered") {
			t.Errorf("%s isolation says %+v", when, i)
		}
	}
	says("without its link", "egress_filtered")
	link := func(name, address string, gateways ...netip.Addr) {
		t.Helper()
		l, err := network.Link(t.Context(), engine.LinkSpec{Name: name, MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix(address)}, Gateways: gateways})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	link(engine.EgressInterface, "10.0.0.2/24", netip.MustParseAddr("10.0.0.1"))
	says("with its link")
	link("other", "10.0.1.2/24")
	says("with another one", "egress_filtered")
}
