package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Hierarchies are the control-group trees of this host: one on v2; on v1 one for each controller, and often a v2 tree
// without controllers beside them (hybrid), which still kills and counts processor time.
type Hierarchies struct {
	unified string            // mount point of the v2 tree, "" where there is none
	v1      map[string]string // controller -> mount point; empty on v2
}

// limiting are the controllers without which no limit holds.
var limiting = []string{"memory", "pids", "cpu"}

// FindHierarchies reads how control groups are mounted. An error names the controllers that are missing.
func FindHierarchies() (*Hierarchies, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	h := &Hierarchies{v1: map[string]string{}}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 4:
		case f[2] == "cgroup2" && h.unified == "":
			h.unified = f[1]
		case f[2] == "cgroup":
			for _, o := range strings.Split(f[3], ",") {
				h.v1[o] = f[1]
			}
		}
	}
	var missing []string
	for _, c := range limiting {
		if h.v1[c] == "" && !h.unifiedHas(c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no control group controller for %s: mount cgroup2 with these controllers at /sys/fs/cgroup (kernel parameters systemd.unified_cgroup_hierarchy=1, cgroup_enable=memory), or run with --cgroupns=host and a writable /sys/fs/cgroup", strings.Join(missing, ", "))
	}
	for c := range h.v1 { // keep what we use
		switch c {
		case "memory", "pids", "cpu":
		case "cpuacct":
			if h.unified != "" {
				delete(h.v1, c)
			}
		default:
			delete(h.v1, c)
		}
	}
	return h, nil
}

// V2 says whether the limits are those of the unified hierarchy.
func (h *Hierarchies) V2() bool { return len(h.v1) == 0 }

func (h *Hierarchies) unifiedHas(controller string) bool {
	if h.unified == "" {
		return false
	}
	b, _ := os.ReadFile(filepath.Join(h.unified, "cgroup.controllers"))
	for _, c := range strings.Fields(string(b)) {
		if c == controller {
			return true
		}
	}
	return false
}

func (h *Hierarchies) roots() []string {
	var all []string
	seen := map[string]bool{}
	for _, c := range []string{"memory", "pids", "cpu", "cpuacct"} { // memory first: what is charged early is charged right
		if m := h.v1[c]; m != "" && !seen[m] {
			seen[m] = true
			all = append(all, m)
		}
	}
	if h.unified != "" {
		all = append(all, h.unified)
	}
	return all
}

// Cgroup is one group, the same path in every hierarchy.
type Cgroup struct {
	h    *Hierarchies
	path string // relative to the roots
}

// Group names a group; nothing is made.
func (h *Hierarchies) Group(path string) Cgroup { return Cgroup{h, path} }

// Child names a group below.
func (g Cgroup) Child(name string) Cgroup { return Cgroup{g.h, g.path + "/" + name} }

// CgroupLimits are a group's limits; 0 is none.
type CgroupLimits struct {
	MemoryBytes int64
	CPUMillis   int // 1000 is one processor, enforced over 100 ms
	Pids        int
	OOMGroup    bool // v2: a victim takes the whole group along
}

// MakeCgroup makes a group in every hierarchy; groups says that it will have groups below it and no process of its own.
func (k *Kernel) MakeCgroup(g Cgroup, groups bool, l CgroupLimits) error {
	if err := k.enter("make cgroup"); err != nil {
		return err
	}
	for _, root := range g.h.roots() {
		if err := os.Mkdir(filepath.Join(root, g.path), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return step("make cgroup", err)
		}
	}
	if groups && g.h.V2() {
		if err := g.h.delegate(filepath.Join(g.h.unified, g.path)); err != nil {
			return err
		}
	}
	return g.limit(l)
}

// Delegate makes sure that the v2 root hands its controllers on; without v2 there is nothing to do.
func (k *Kernel) Delegate(h *Hierarchies) error {
	if !h.V2() {
		return nil
	}
	return h.delegate(h.unified)
}

func (h *Hierarchies) delegate(dir string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	have, err := os.ReadFile(file)
	if err != nil {
		return step("read subtree_control", err)
	}
	on := strings.Fields(string(have))
	for _, c := range limiting {
		missing := true
		for _, o := range on {
			missing = missing && o != c
		}
		if missing {
			if err := os.WriteFile(file, []byte("+"+c), 0); err != nil {
				return step("hand the "+c+" controller on (cgroup.subtree_control)", err)
			}
		}
	}
	return nil
}

func (g Cgroup) limit(l CgroupLimits) error {
	type setting struct{ controller, v1file, v1value, v2file, v2value string }
	var all []setting
	if l.MemoryBytes > 0 {
		n := strconv.FormatInt(l.MemoryBytes, 10)
		all = append(all, setting{"memory", "memory.limit_in_bytes", n, "memory.max", n})
	}
	if l.CPUMillis > 0 {
		quota := strconv.Itoa(max(1000, l.CPUMillis*100)) // µs in 100 ms; 1 ms is the kernel's least
		all = append(all, setting{"cpu", "cpu.cfs_period_us", "100000", "cpu.max", quota + " 100000"},
			setting{"cpu", "cpu.cfs_quota_us", quota, "", ""})
	}
	if l.Pids > 0 {
		n := strconv.Itoa(l.Pids)
		all = append(all, setting{"pids", "pids.max", n, "pids.max", n})
	}
	for _, s := range all {
		dir, file, value := g.h.v1[s.controller], s.v1file, s.v1value
		if g.h.V2() {
			dir, file, value = g.h.unified, s.v2file, s.v2value
		}
		if file == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, g.path, file), []byte(value), 0); err != nil {
			return step("set "+file, err)
		}
	}
	if l.MemoryBytes > 0 { // swap is not there on every host, and neither are these files
		if g.h.V2() {
			_ = os.WriteFile(filepath.Join(g.h.unified, g.path, "memory.swap.max"), []byte("0"), 0)
		} else {
			_ = os.WriteFile(filepath.Join(g.h.v1["memory"], g.path, "memory.memsw.limit_in_bytes"), []byte(strconv.FormatInt(l.MemoryBytes, 10)), 0)
		}
	}
	if l.OOMGroup && g.h.V2() {
		if err := os.WriteFile(filepath.Join(g.h.unified, g.path, "memory.oom.group"), []byte("1"), 0); err != nil {
			return step("set memory.oom.group", err)
		}
	}
	return nil
}

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

// Join are the files through which a process puts itself into the group: it writes "0" to each. They carry the opener's
// right to do so, so that a process without any can use them. Source: cgroup_attach_permissions in kernel/cgroup/cgroup.c.
func (g Cgroup) Join() ([]*os.File, error) {
	var files []*os.File
	for _, root := range g.h.roots() {
		f, err := os.OpenFile(filepath.Join(root, g.path, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, step("open cgroup.procs", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// AddProcess moves a process into the group.
func (k *Kernel) AddProcess(g Cgroup, pid int) error {
	if err := k.enter("move into cgroup"); err != nil {
		return err
	}
	for _, root := range g.h.roots() {
		if err := os.WriteFile(filepath.Join(root, g.path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return step("move into cgroup", err)
		}
	}
	return nil
}

// Processes are the host's pids in the group, those below it included.
func (g Cgroup) Processes() []int {
	seen := map[int]bool{}
	var pids []int
	for _, root := range g.h.roots() { // one hierarchy may lag behind another
		_ = filepath.WalkDir(filepath.Join(root, g.path), func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil
			}
			b, _ := os.ReadFile(filepath.Join(p, "cgroup.procs"))
			for _, s := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(s); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// Kill ends every process of the group and below it: in one stroke where there is a v2 tree (5.14), else until none is left.
func (g Cgroup) Kill() error {
	if g.h.unified != "" {
		err := os.WriteFile(filepath.Join(g.h.unified, g.path, "cgroup.kill"), []byte("1"), 0)
		if err == nil || errors.Is(err, os.ErrNotExist) && !g.Exists() {
			return nil
		}
	}
	for range 1000 { // a fork bomb may run ahead of one pass, its pids limit ends that
		pids := g.Processes()
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("processes %v do not die", g.Processes())
}

// Exists says whether the group is there in any hierarchy.
func (g Cgroup) Exists() bool {
	for _, root := range g.h.roots() {
		if _, err := os.Stat(filepath.Join(root, g.path)); err == nil {
			return true
		}
	}
	return false
}

// Remove removes the group and all below it, in every hierarchy; nil for what is gone, EBUSY while a process is in it.
func (g Cgroup) Remove() error {
	var failed error
	for _, root := range g.h.roots() {
		if err := removeTree(filepath.Join(root, g.path)); err != nil && failed == nil {
			failed = step("remove cgroup", err)
		}
	}
	return failed
}

func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// Children are the names of the groups directly below, in any hierarchy.
func (g Cgroup) Children() []string {
	seen := map[string]bool{}
	var names []string
	for _, root := range g.h.roots() {
		entries, _ := os.ReadDir(filepath.Join(root, g.path))
		for _, e := range entries {
			if e.IsDir() && !seen[e.Name()] {
				seen[e.Name()] = true
				names = append(names, e.Name())
			}
		}
	}
	return names
}

func (g Cgroup) file(controller, name string) string {
	dir := g.h.unified
	if m := g.h.v1[controller]; m != "" {
		dir = m
	}
	return filepath.Join(dir, g.path, name)
}

func (g Cgroup) read(controller, name string) string {
	b, _ := os.ReadFile(g.file(controller, name))
	return strings.TrimSpace(string(b))
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
	if err := os.WriteFile(g.file("memory", "cgroup.event_control"), []byte(line), 0); err != nil {
		event.Close()
		return nil, step("watch for OOM", err)
	}
	return event, nil
}

// KillFile is where a "1" kills the whole group, nil where the kernel has none. It carries the opener's right.
func (g Cgroup) KillFile() *os.File {
	if g.h.unified == "" {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(g.h.unified, g.path, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return nil
	}
	return f
}

// Kind is v2, v1, or hybrid: v1 with a v2 tree beside it.
func (h *Hierarchies) Kind() string {
	switch {
	case h.V2():
		return "v2"
	case h.unified != "":
		return "hybrid"
	}
	return "v1"
}

// Warm begins what makes the first move into a control group after a quiet moment slow: the kernel waits for an RCU grace
// period, 8 to 16 ms, and moves within the next 12 ms are spared it. Putting a process where it already is starts that
// wait while the caller does other work. Source: cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c.
func (h *Hierarchies) Warm() {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		root := h.unified
		if len(f) == 3 && f[1] != "" {
			root = h.v1[f[1]]
		}
		if len(f) == 3 && root != "" {
			_ = os.WriteFile(filepath.Join(root, f[2], "cgroup.procs"), []byte("0"), 0)
			return
		}
	}
}
