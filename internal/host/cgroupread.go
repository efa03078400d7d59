package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits reads back what the kernel enforces; what is not limited is 0.
func (g Cgroup) Limits() CgroupLimits {
	var l CgroupLimits
	if g.h.V2() {
		l.MemoryBytes = g.number("memory", "memory.max")
		l.Pids = int(g.number("pids", "pids.max"))
		if f := strings.Fields(g.read("cpu", "cpu.max")); len(f) == 2 && f[0] != "max" {
			quota, _ := strconv.Atoi(f[0])
			period, _ := strconv.Atoi(f[1])
			l.CPUMillis = quota * 1000 / max(1, period)
		}
		return l
	}
	if n := g.number("memory", "memory.limit_in_bytes"); n < 1<<62 {
		l.MemoryBytes = n
	}
	l.Pids = int(g.number("pids", "pids.max"))
	if quota := g.number("cpu", "cpu.cfs_quota_us"); quota > 0 {
		l.CPUMillis = int(quota * 1000 / max(1, g.number("cpu", "cpu.cfs_period_us")))
	}
	return l
}

func (g Cgroup) file(controller, name string) string {
	dir := g.h.unified
	if m := g.h.v1[controller]; m != "" {
		dir = m
	}
	return filepath.Join(dir, g.path, name)
}

func (g Cgroup) read(controller, name string) string {
	b, _ := readFile(g.file(controller, name))
	return strings.TrimSpace(b)
}

func (g Cgroup) number(controller, name string) int64 {
	n, _ := strconv.ParseInt(g.read(controller, name), 10, 64)
	return n
}

func (g Cgroup) field(controller, name, key string) int64 {
	for line := range strings.Lines(g.read(controller, name)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// CgroupUsage is what the kernel counted for a group.
type CgroupUsage struct {
	CPU             time.Duration
	MemoryPeakBytes int64
	PidsPeak        *int64 // nil before kernel 6.6
	OOMKills        int64
}

// Usage reads the counters.
func (g Cgroup) Usage() CgroupUsage {
	var u CgroupUsage
	if g.h.unified != "" {
		u.CPU = time.Duration(g.field("", "cpu.stat", "usage_usec")) * time.Microsecond
	} else {
		u.CPU = time.Duration(g.number("cpuacct", "cpuacct.usage"))
	}
	if g.h.V2() {
		u.MemoryPeakBytes = g.number("memory", "memory.peak")
		u.OOMKills = g.field("memory", "memory.events", "oom_kill")
	} else {
		u.MemoryPeakBytes = g.number("memory", "memory.max_usage_in_bytes")
		u.OOMKills = g.field("memory", "memory.oom_control", "oom_kill")
	}
	if s := g.read("pids", "pids.peak"); s != "" {
		n := g.number("pids", "pids.peak")
		u.PidsPeak = &n
	}
	return u
}

// OnOOM is readable each time the group, or one above it, ran out of memory; nil on v2, where memory.oom.group does what
// it is wanted for. Source: cgroup-v1/memory.rst, section 10.
func (g Cgroup) OnOOM() (*os.File, error) {
	if g.h.V2() {
		return nil, nil
	}
	efd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, step("eventfd", err)
	}
	event := os.NewFile(uintptr(efd), "oom")
	control, err := os.Open(g.file("memory", "memory.oom_control"))
	if err != nil {
		event.Close()
		return nil, step("open memory.oom_control", err)
	}
	defer control.Close()
	line := fmt.Sprintf("%d %d", efd, control.Fd())
	if err := writeFile(g.file("memory", "cgroup.event_control"), line); err != nil {
		event.Close()
		return nil, step("watch for OOM", err)
	}
	return event, nil
}

// CgroupMemory is what a group and those below it have now, in bytes.
type CgroupMemory struct {
	All    int64 // reclaimable cache included
	Kernel int64 // of it, the kernel's own for them: stacks, page tables, slabs. Source: cgroup-v2.rst, memory.stat (5.18)
}

// Memory reads what is charged to the group.
func (g Cgroup) Memory() CgroupMemory {
	if g.h.V2() {
		return CgroupMemory{g.number("memory", "memory.current"), g.field("memory", "memory.stat", "kernel")}
	}
	return CgroupMemory{g.number("memory", "memory.usage_in_bytes"), g.number("memory", "memory.kmem.usage_in_bytes")}
}
