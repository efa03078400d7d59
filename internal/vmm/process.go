package vmm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/netns"
)

// Process is a monitor's. It outlives who started it.
type Process struct {
	*host.Process
	c       Config
	console *console // nil: it was found
}

// StartProcess starts a monitor, or its jailer, in the network namespace of c and a mount namespace of its own, and lets c place it.
func StartProcess(c Config, cmd *exec.Cmd) (*Process, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = in, in, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: unix.CLONE_NEWNS}
	if err := netns.In(c.Namespace, cmd.Start); err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	held, err := host.Hold(cmd.Process.Pid)
	if err != nil {
		out.Close()
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	p := &Process{Process: held, c: c, console: &console{ended: make(chan struct{})}}
	go p.console.read(out)
	if err := c.Place(held.Pid); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// FindProcess finds the one in the control group of c. Its number can't be another's: it is held before the group is asked again.
func FindProcess(c Config) (*Process, error) {
	pids := c.Processes()
	if len(pids) != 1 {
		return nil, fmt.Errorf("%d processes are in the machine's control group, want one", len(pids))
	}
	held, err := host.Hold(pids[0])
	if err != nil {
		return nil, err
	}
	if again := c.Processes(); len(again) != 1 || again[0] != pids[0] {
		return nil, errors.New("the machine's process has ended")
	}
	return &Process{Process: held, c: c}, nil
}

// Console implements VM.
func (p *Process) Console() string {
	if p.console == nil {
		return ""
	}
	if !p.Alive() { // its last words may be on their way
		select {
		case <-p.console.ended:
		case <-time.After(time.Second):
		}
	}
	return p.console.last()
}

// consoleMost is how much of what a guest prints is kept. It may print for ever; when nobody reads any more, the monitor throws it away.
const consoleMost = 4 << 10

type console struct {
	ended chan struct{} // closed when no more comes
	mu    sync.Mutex
	text  []byte
}

func (c *console) read(r io.ReadCloser) {
	defer close(c.ended)
	defer r.Close()
	buf := make([]byte, consoleMost)
	for {
		n, err := r.Read(buf)
		c.mu.Lock()
		c.text = append(c.text, buf[:n]...)
		if more := len(c.text) - consoleMost; more > 0 {
			c.text = append([]byte(nil), c.text[more:]...)
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// last is printable: it comes from a guest, and goes into logs and errors.
func (c *console) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r >= ' ' && r < 0x7f:
			return r
		case r == '\r':
			return -1
		}
		return '?'
	}, string(c.text))
}

// Protections are those of a monitor that Isolation looks for.
var Protections = []string{
	"hardware_virtualization", "monitor_user", "monitor_root", "monitor_seccomp", "monitor_capabilities_dropped", "monitor_no_new_privs",
	"monitor_network_namespace", "monitor_mount_namespace", "monitor_cgroup",
}

// Isolation implements VM: the kernel is asked, of the process that is held.
func (p *Process) Isolation() []string {
	proc := fmt.Sprintf("/proc/%d", p.Pid)
	status := map[string]string{}
	text, _ := os.ReadFile(proc + "/status")
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.TrimSpace(value)
	}
	own := func(id int) string { return strings.Repeat(strconv.Itoa(id)+"\t", 3) + strconv.Itoa(id) }
	root, rootErr := os.Stat(proc + "/root/")
	ours, _ := os.Stat("/")
	groups, _ := os.ReadFile(proc + "/cgroup")
	all := map[string]bool{
		"hardware_virtualization":      hasKVM(proc),
		"monitor_user":                 status["Uid"] == own(p.c.UID) && status["Gid"] == own(p.c.GID) && (status["Groups"] == "" || status["Groups"] == strconv.Itoa(p.c.GID)),
		"monitor_root":                 rootErr == nil && !os.SameFile(root, ours),
		"monitor_seccomp":              status["Seccomp"] == "2",
		"monitor_capabilities_dropped": none(status["CapEff"]) && none(status["CapPrm"]) && none(status["CapAmb"]),
		"monitor_no_new_privs":         status["NoNewPrivs"] == "1",
		"monitor_network_namespace":    apart(proc, "net"),
		"monitor_mount_namespace":      apart(proc, "mnt"),
		"monitor_cgroup":               strings.Contains(string(groups), "/"+p.c.ID),
	}
	var have []string
	for _, name := range Protections {
		if all[name] && p.Alive() {
			have = append(have, name)
		}
	}
	return have
}

func none(caps string) bool { return caps != "" && strings.Trim(caps, "0") == "" }

func apart(proc, ns string) bool {
	theirs, err1 := os.Readlink(proc + "/ns/" + ns)
	ours, err2 := os.Readlink("/proc/self/ns/" + ns)
	return err1 == nil && err2 == nil && theirs != ours
}

// hasKVM: the process has a virtual machine of the kernel's open. Source: kvm_create_vm in virt/kvm/kvm_main.c.
func hasKVM(proc string) bool {
	fds, _ := filepath.Glob(proc + "/fd/*")
	for _, fd := range fds {
		if name, _ := os.Readlink(fd); name == "anon_inode:kvm-vm" {
			return true
		}
	}
	return false
}
