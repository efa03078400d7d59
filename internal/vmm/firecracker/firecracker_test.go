package firecracker_test

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/internal/vmm/firecracker"
	"outpost.run/outpost/test/kernels/cache"
)

// programs are the real ones.
func programs(t testing.TB) (firecracker, jailer string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a jailer")
	}
	if testing.Short() {
		t.Skip("downloads Firecracker")
	}
	c, err := cache.Open(io.Discard)
	if err == nil {
		firecracker, jailer, err = c.Firecracker(t.Context())
	}
	if err != nil {
		t.Skip(err)
	}
	return firecracker, jailer
}

// endlessKernel is an ELF file whose one instruction jumps to itself: what runs it needs no KVM that runs more.
func endlessKernel() []byte {
	const at, start = 0x1000, 0x100000
	f := make([]byte, at+2)
	copy(f, elf.ELFMAG+"\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(f[16:], uint16(elf.ET_EXEC))
	le.PutUint16(f[18:], uint16(elf.EM_X86_64))
	le.PutUint32(f[20:], 1)
	le.PutUint64(f[24:], start)
	le.PutUint64(f[32:], 64) // where the program headers are
	le.PutUint16(f[52:], 64)
	le.PutUint16(f[54:], 56)
	le.PutUint16(f[56:], 1)
	p := f[64:]
	le.PutUint32(p, uint32(elf.PT_LOAD))
	le.PutUint32(p[4:], uint32(elf.PF_R|elf.PF_X))
	le.PutUint64(p[8:], at)
	le.PutUint64(p[16:], start)
	le.PutUint64(p[24:], start)
	le.PutUint64(p[32:], 2)
	le.PutUint64(p[40:], 2)
	le.PutUint64(p[48:], at)
	copy(f[at:], []byte{0xeb, 0xfe}) // jmp .
	return f
}

// config is a machine's.
func config(t testing.TB, id string) vmm.Config {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "outpost-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := vmm.Config{ID: id, Dir: filepath.Join(dir, id), UID: 1<<28 + 1, GID: 1<<28 + 2, MemoryMB: 128, VCPUs: 1, Place: func(int) error { return nil }}
	if c.Namespace, err = netns.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Namespace.Close() })
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.Kernel, c.Initrd = filepath.Join(dir, "kernel"), filepath.Join(dir, "initrd")
	layer, disk := filepath.Join(dir, "layer"), filepath.Join(dir, "disk")
	for path, content := range map[string][]byte{c.Kernel: endlessKernel(), c.Initrd: []byte("initrd"), layer: make([]byte, 4096), disk: make([]byte, 1<<20)} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.Drives = []vmm.Drive{{ID: "drive0", Path: layer, ReadOnly: true}, {ID: "drive1", Path: disk}}
	return c
}

func TestAMonitorIsInItsJail(t *testing.T) {
	m := firecracker.New(firstOf(programs(t)), secondOf(programs(t)), 1024)
	c := config(t, "m_0123456789ab")
	v, err := m.Start(t.Context(), c)
	if err != nil && strings.Contains(err.Error(), "KVM") {
		t.Skipf("this host has no KVM: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	have := v.Isolation()
	for _, want := range vmm.Protections {
		if want != "monitor_cgroup" && !slices.Contains(have, want) { // none was made
			t.Errorf("%s is not in force: %v", want, have)
		}
	}
	v.Kill()
	select {
	case <-v.Dead():
	case <-time.After(5 * time.Second):
		t.Fatal("the monitor lives on")
	}
	if err := m.Remove(c.Dir); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(c.Dir); len(left) > 0 {
		t.Errorf("left in the machine's folder: %v", left)
	}
	if b, err := os.ReadFile(c.Drives[0].Path); err != nil || len(b) != 4096 {
		t.Errorf("the layer is gone: %v", err)
	}
}

func firstOf(a, _ string) string  { return a }
func secondOf(_, b string) string { return b }

func TestAJailThatIsThereIsNotUsed(t *testing.T) {
	m := firecracker.New("/nonexistent/firecracker", "/nonexistent/jailer", 1024)
	c := config(t, "m_0123456789ac")
	if err := os.Symlink("/etc", filepath.Join(c.Dir, "jail")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(context.Background(), c); err == nil {
		t.Error("a jail was made where somebody had put a link")
	}
	if err := m.Remove(c.Dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Fatal("the link's target was removed")
	}
}

// BenchmarkAJail is the host's share of a machine: jailer, sockets, files and all calls up to the guest's start, and its end.
func BenchmarkAJail(b *testing.B) {
	program, jailer := programs(b)
	m := firecracker.New(program, jailer, 1024)
	for b.Loop() {
		c := config(b, "m_0123456789ab")
		began := time.Now()
		v, err := m.Start(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/1000, "ms/start")
		v.Kill()
		<-v.Dead()
		if err := m.Remove(c.Dir); err != nil {
			b.Fatal(err)
		}
	}
}
