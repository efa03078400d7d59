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
	return g.add(pid)
}

func (g Cgroup) add(pid int) error {
	for _, root := range g.h.roots() {
		if err := writeFile(filepath.Join(root, g.path, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return step("move into cgroup", err)
		}
	}
	return nil
}

// Members are the host's pids in the group itself, as one hierarchy has them.
func (g Cgroup) Members() []int {
	text, _ := readFile(filepath.Join(g.h.roots()[0], g.path, "cgroup.procs"))
	var pids []int
	for _, s := range strings.Fields(text) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
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
			b, _ := readFile(filepath.Join(p, "cgroup.procs"))
			for _, s := range strings.Fields(b) {
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
		err := writeFile(filepath.Join(g.h.unified, g.path, "cgroup.kill"), "1")
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
			_ = writeFile(filepath.Join(root, f[2], "cgroup.procs"), "0")
			return
		}
	}
}
