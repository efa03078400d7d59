package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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

// LimitCgroup limits a group that was made without.
func (k *Kernel) LimitCgroup(g Cgroup, l CgroupLimits) error {
	if err := k.enter("limit cgroup"); err != nil {
		return err
	}
	return g.limit(l)
}

// Yield lets a group have the processors that nobody else wants, or, with false, its share again. Source: cpu.shares of
// sched-design-CFS.rst, cpu.weight of cgroup-v2.rst.
func (k *Kernel) Yield(g Cgroup, yes bool) error {
	if err := k.enter("weigh cgroup"); err != nil {
		return err
	}
	file, value := filepath.Join(g.h.v1["cpu"], g.path, "cpu.shares"), map[bool]string{true: "32", false: "1024"}[yes]
	if g.h.V2() {
		file, value = filepath.Join(g.h.unified, g.path, "cpu.weight"), map[bool]string{true: "3", false: "100"}[yes]
	}
	return step("weigh cgroup", writeFile(file, value))
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
	have, err := readFile(file)
	if err != nil {
		return step("read subtree_control", err)
	}
	on := strings.Fields(have)
	for _, c := range limiting {
		missing := true
		for _, o := range on {
			missing = missing && o != c
		}
		if missing {
			if err := writeFile(file, "+"+c); err != nil {
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
		if err := writeFile(filepath.Join(dir, g.path, file), value); err != nil {
			return step("set "+file, err)
		}
	}
	if l.MemoryBytes > 0 { // swap is not there on every host, and neither are these files
		if g.h.V2() {
			_ = writeFile(filepath.Join(g.h.unified, g.path, "memory.swap.max"), "0")
		} else {
			_ = writeFile(filepath.Join(g.h.v1["memory"], g.path, "memory.memsw.limit_in_bytes"), strconv.FormatInt(l.MemoryBytes, 10))
		}
	}
	if l.OOMGroup && g.h.V2() {
		if err := writeFile(filepath.Join(g.h.unified, g.path, "memory.oom.group"), "1"); err != nil {
			return step("set memory.oom.group", err)
		}
	}
	return nil
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

// Remove removes the group and all below it, in every hierarchy; nil for what is gone, EBUSY while a process is in it. below
// are groups that most likely are there, lowest first: they need not be looked for.
func (g Cgroup) Remove(below ...string) error {
	var failed error
	for _, root := range g.h.roots() {
		for _, name := range below {
			_ = unix.Rmdir(filepath.Join(root, g.path, name))
		}
		if err := removeTree(filepath.Join(root, g.path)); err != nil && failed == nil {
			failed = step("remove cgroup", err)
		}
	}
	return failed
}

// RemoveEmpty removes the group where nothing is in it or below it, and leaves it otherwise.
func (g Cgroup) RemoveEmpty() error {
	var failed error
	for _, root := range g.h.roots() {
		err := unix.Rmdir(filepath.Join(root, g.path))
		if err != nil && err != unix.ENOENT && err != unix.EBUSY && err != unix.ENOTEMPTY && failed == nil {
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
