package microvm_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/enginetest"
	"outpost.run/outpost/internal/engine/microvm"
	"outpost.run/outpost/internal/engine/microvm/link"
	"outpost.run/outpost/internal/guestos"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/internal/vmm/firecracker"
	"outpost.run/outpost/internal/vmm/qemu"
	"outpost.run/outpost/test/kernels/cache"
)

// install is one installation of an engine, with a data directory on a disk.
type install struct {
	microvm.Options
	t *testing.T
}

// systems makes the guest's system once for all tests, beside what else they download.
func systems(t *testing.T) *guestos.Maker {
	t.Helper()
	dir := os.Getenv("OUTPOST_TEST_GUESTOS")
	if dir == "" {
		c, err := cache.Open(os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(c.Dir, "guestos")
	}
	return guestos.NewMaker(guestos.Options{Dir: dir, Init: microvm.Keeper})
}

func newInstall(t *testing.T, monitor vmm.Monitor) *install {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start monitors in jails")
	}
	base := "/var/tmp"
	if dir := os.Getenv("OUTPOST_TEST_DATA"); dir != "" {
		base = dir
	}
	dir, err := os.MkdirTemp(base, "outpost-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing is ever mounted there
	id := "test" + dir[len(dir)-6:]
	if err := os.WriteFile(dir+"/installation", []byte(id), 0o600); err != nil {
		t.Fatal(err)
	}
	system := systems(t)
	return &install{microvm.Options{
		Kernel: host.New(), DataDir: dir, Installation: id, Monitor: monitor, Patience: time.Minute, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		System: func(ctx context.Context) (microvm.System, error) {
			s, err := system.Get(ctx)
			return microvm.System{Kernel: s.Kernel, Initrd: s.Initrd, Build: s.Build}, err
		},
	}, t}
}

// open is a daemon's start.
func (i *install) open() *microvm.Engine {
	i.t.Helper()
	e, err := microvm.Open(i.Options)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(e.Close)
	return e
}

// suite runs the engines' cases.
func suite(t *testing.T, monitor vmm.Monitor, only func(string) bool, lacks ...string) {
	layers := imagetest.Layers(t, imagetest.Python)
	var now *install
	enginetest.Run(t, enginetest.Subject{
		Open:   func(t *testing.T) engine.Engine { now = newInstall(t, monitor); return now.open() },
		Reopen: func(*testing.T) engine.Engine { return now.open() },
		Layers: layers, Lacks: lacks, AtOnce: 2, Guests: true, Only: only,
	})
}

// TestMicroVMs runs real guests of real Firecracker under its real jailer: where KVM runs any, which is, in make test, an emulated
// processor (test/kernels).
func TestMicroVMs(t *testing.T) { suite(t, realMonitor(t), nil) }

// realMonitor is Firecracker under its jailer, where KVM runs guests.
func realMonitor(t *testing.T) vmm.Monitor {
	t.Helper()
	m := firecracker.New(os.Getenv("OUTPOST_TEST_FIRECRACKER"), os.Getenv("OUTPOST_TEST_JAILER"), link.Port)
	for _, c := range microvm.Probe(t.Context(), m).Checks {
		if c.Required && !c.OK {
			t.Skipf("%s: %s; %s", c.Name, c.Found, c.Mend)
		}
	}
	return m
}

// shortly chooses the cases that go through what QEMU does otherwise than Firecracker; each takes some ten seconds in emulation. One is not
// there: a port of QEMU has one connection at a time, and the former daemon of that case is not dead, but another in the same process.
func shortly(name string) bool {
	return strings.HasPrefix(name, "a program prints") || strings.HasPrefix(name, "a disk keeps")
}

func TestMicroVMsInAnEmulatorOnTheHost(t *testing.T) {
	if testing.Short() {
		t.Skip("a guest takes seconds to boot in emulation")
	}
	c, err := cache.Open(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	command, err := c.QEMU(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	suite(t, qemu.New(command, true), shortly, "hardware_virtualization")
}
