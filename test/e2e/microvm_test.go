package e2e_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"outpost.run/outpost/internal/engine/microvm"
	"outpost.run/outpost/internal/guestos"
	"outpost.run/outpost/sandbox"
	"outpost.run/outpost/test/kernels/cache"
)

// emulator gives the flags of a server that runs microVMs in QEMU without KVM.
func emulator(t *testing.T, dir string) []string {
	t.Helper()
	c, err := cache.Open(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	command, err := c.QEMU(t.Context())
	if err != nil {
		t.Skipf("QEMU: %v", err)
	}
	script := filepath.Join(dir, "qemu")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec '"+strings.Join(command, "' '")+"' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{"--engines-microvm-vmm", "qemu", "--engines-microvm-qemu", script, "--engines-microvm-allow-emulation", "true", "--pool-max-idle", "0"}
}

// haveGuests gives a server, which reaches no archive, what its guests boot: by links to what the tests keep.
func (s *server) haveGuests(t *testing.T) {
	t.Helper()
	c, err := cache.Open(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	system, err := guestos.NewMaker(guestos.Options{Dir: filepath.Join(c.Dir, "guestos"), Init: microvm.Keeper}).Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from := filepath.Dir(system.Kernel)
	to := filepath.Join(s.dir, "guestos", filepath.Base(from))
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vmlinux", "initrd", "release"} {
		if err := os.Link(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAMicroVMOverItsWholeLife: an emulated guest takes ten seconds to come up, and keeps what every sandbox keeps.
func TestAMicroVMOverItsWholeLife(t *testing.T) {
	at, s := newSite(t, "", emulator(t, t.TempDir())...)
	s.haveGuests(t)
	made, err := s.Create(t.Context(), sandbox.CreateRequest{
		Language: new("python"), Mode: new("stateful"), Network: egress("none"), DiskSizeGB: new(1), Security: &sandbox.SecurityRequest{JailerEnabled: new(true)},
		Ports: []sandbox.PortRequest{port(8000, "tcp", 0), port(5353, "udp", 0), port(7000, "tcp", 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	i := made.Isolation
	if i.Engine != "microvm" || i.VMM != "qemu" || !slices.Equal(i.Missing, []string{"hardware_virtualization"}) || !slices.Contains(i.Effective, "seccomp") || !slices.Contains(i.Effective, "monitor_user") {
		t.Errorf("isolation: %+v", i)
	}
	clean(t, s.python(t, made.ID, servers))
	says := s.python(t, made.ID, "import os; print(os.uname().release, file=open('/data/kernel', 'w')); print(open('/data/kernel').read())")
	if host, _ := os.ReadFile("/proc/sys/kernel/osrelease"); says.ExitCode != 0 || strings.TrimSpace(says.Stdout) == strings.TrimSpace(string(host)) {
		t.Errorf("the guest's kernel is %q, the host's %q (%s)", says.Stdout, host, says.Stderr)
	}
	answers(t, at, made.Ports)
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	answers(t, at, made.Ports)
	if _, err := s.Stop(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if again := s.python(t, made.ID, "print(open('/data/kernel').read(), open('hello').read())"); again.Stdout != says.Stdout[:len(says.Stdout)-1]+" from inside\n" {
		t.Errorf("after a stop and a start: %q %s, before: %q", again.Stdout, again.Stderr, says.Stdout)
	}
	if err := s.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	refusedAt(t, at, made.Ports)
	if left := s.held(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
}

func TestAMicroVMThatCantBeHadIsRefusedWithWhatMendsIt(t *testing.T) {
	s := newServer(t, "--engines-microvm-firecracker", "/nonexistent/firecracker", "--engines-microvm-jailer", "/nonexistent/jailer")
	_, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Security: &sandbox.SecurityRequest{JailerEnabled: new(true)}})
	if said := fmt.Sprint(err); sandbox.CodeOf(err) != sandbox.MicroVMUnavailable || !strings.Contains(said, "/nonexistent/firecracker") || !strings.Contains(said, "install firecracker") {
		t.Errorf("got %v", err)
	}
}
