// Package qemu runs virtual machines in QEMU's microvm, for hosts whose operator asks for it and for tests. It has been broken out of where
// Firecracker has not.
package qemu

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/sandbox"
)

// Monitor implements vmm.Monitor.
type Monitor struct {
	command  []string
	emulated bool
}

// New takes the command that starts QEMU, and whether it is to emulate a processor instead of using KVM.
func New(command []string, emulated bool) *Monitor { return &Monitor{command, emulated} }

// Name implements vmm.Monitor.
func (*Monitor) Name() string { return "qemu" }

const linkSocket = "link.sock"

func jail(dir string) string { return filepath.Join(dir, "jail") }

// Start implements vmm.Monitor.
func (m *Monitor) Start(ctx context.Context, c vmm.Config) (vmm.VM, error) {
	if err := os.Mkdir(jail(c.Dir), 0o700); err != nil {
		return nil, err
	}
	p, err := vmm.StartProcess(c, exec.Command(m.command[0], append(m.command[1:len(m.command):len(m.command)], m.arguments(c)...)...))
	if err != nil {
		return nil, err
	}
	v := &machine{p, filepath.Join(c.Dir, linkSocket)}
	for { // until it has opened all its files and left root behind
		if _, err := os.Lstat(v.socket); err == nil {
			return v, nil
		}
		select {
		case <-v.Dead():
			return nil, fmt.Errorf("qemu ended: %s", v.Console())
		case <-ctx.Done():
			v.Kill()
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// arguments: the fewest devices that do. QEMU opens its files as root and then becomes the machine's user in an empty folder.
func (m *Monitor) arguments(c vmm.Config) []string {
	accel, machine, cpu, bus := "kvm", "microvm", "host", "device"
	if m.emulated { // a microvm that is emulated ends in its firmware one time in four (QEMU 10.0)
		accel, machine, cpu, bus = "tcg,thread=multi", "pc", "max,la57=off", "pci"
	}
	args := []string{
		"-M", machine, "-accel", accel, "-cpu", cpu, "-m", strconv.Itoa(c.MemoryMB) + "M", "-smp", strconv.Itoa(c.VCPUs),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		// It leaves root behind under its filter, which therefore must let it; nothing is to be had there again, with no_new_privs.
		"-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny",
		"-run-with", fmt.Sprintf("chroot=%s,user=%d:%d", jail(c.Dir), c.UID, c.GID),
		"-kernel", c.Kernel, "-initrd", c.Initrd, "-append", "console=ttyS0 reboot=t panic=-1 quiet outpost.link=serial " + c.Arguments,
		"-chardev", "socket,id=link,server=on,wait=off,path=" + escaped(filepath.Join(c.Dir, linkSocket)),
		"-device", "virtio-serial-" + bus, "-device", "virtserialport,chardev=link,name=outpost.link",
	}
	for i, d := range c.Drives {
		readOnly, cache := "off", "on"
		if d.ReadOnly {
			readOnly = "on"
		}
		if d.Durable {
			cache = "off"
		}
		device := "virtio-blk-" + bus + ",drive=" + d.ID
		if !m.emulated {
			device += fmt.Sprintf(",bus=virtio-mmio-bus.%d", len(c.Drives)-1-i) // guests count them from the last
		}
		args = append(args,
			"-blockdev", fmt.Sprintf("driver=raw,node-name=%s,read-only=%s,cache.no-flush=%s,file.driver=file,file.locking=off,file.filename=%s", d.ID, readOnly, cache, escaped(d.Path)),
			"-device", device)
	}
	return args
}

// escaped is a value in a list of options.
func escaped(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// Find implements vmm.Monitor.
func (m *Monitor) Find(_ context.Context, c vmm.Config) (vmm.VM, error) {
	p, err := vmm.FindProcess(c)
	if err != nil {
		return nil, err
	}
	return &machine{p, filepath.Join(c.Dir, linkSocket)}, nil
}

// Remove implements vmm.Monitor.
func (m *Monitor) Remove(dir string) error {
	if err := os.Remove(filepath.Join(dir, linkSocket)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return vmm.RemoveJail(jail(dir))
}

type machine struct {
	*vmm.Process
	socket string
}

// Dial implements vmm.VM. The port has one connection at a time.
func (v *machine) Dial(ctx context.Context) (net.Conn, error) { return vmm.DialSocket(ctx, v.socket) }

// SetDrive implements vmm.VM.
func (*machine) SetDrive(context.Context, string, string) error {
	return sandbox.Errorf(sandbox.NotSupported, nil, "a microVM in QEMU can't be shown anything when it runs")
}

// Snapshot implements vmm.VM.
func (*machine) Snapshot(context.Context, string) error {
	return sandbox.Errorf(sandbox.NotSupported, nil, "microVMs in QEMU are not made of snapshots")
}

var version = regexp.MustCompile(`version (\d+)\.(\d+)\S*`)

// Probe implements vmm.Monitor.
func (m *Monitor) Probe(ctx context.Context) vmm.Report {
	program := vmm.Check{Name: "qemu", Required: true, Mend: "install qemu-system-x86 9.1 or later, or name it by engines.microvm.qemu"}
	out, err := exec.CommandContext(ctx, m.command[0], append(m.command[1:len(m.command):len(m.command)], "--version")...).Output()
	v := version.FindStringSubmatch(string(out))
	if err != nil || v == nil {
		program.Found = fmt.Sprintf("%s: %v", m.command[0], err)
	} else {
		major, _ := strconv.Atoi(v[1])
		minor, _ := strconv.Atoi(v[2])
		program.Found, program.OK = strings.TrimPrefix(v[0], "version "), major > 9 || major == 9 && minor >= 1 // -run-with user=
	}
	checks := []vmm.Check{program}
	if m.emulated {
		checks = append(checks, vmm.Check{Name: "hardware virtualization", Found: "emulated, as engines.microvm.allow_emulation allows", Mend: "a host with KVM"})
	} else {
		checks = append(checks, vmm.CheckKVM(host.TryKVM))
	}
	return vmm.NewReport(program.Found, checks...)
}

var _ vmm.Monitor = (*Monitor)(nil)
