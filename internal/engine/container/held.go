package container

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
)

// FindHeld lists what carries an installation's mark on this host. It changes nothing and needs no Engine. daemon is the pid of
// the one that runs, 0 for none: only through it can be seen what it keeps in memory.
func FindHeld(dataDir, installation string, daemon int) ([]engine.Held, error) {
	groups, err := host.FindHierarchies()
	if err != nil {
		return nil, err
	}
	root := groups.Group("outpost-" + installation)
	reader := &Engine{dir: resolved(filepath.Join(dataDir, "run")), disks: resolved(filepath.Join(dataDir, "disks"))}
	if memory := resolved(filepath.Join(dataDir, "mounts")); daemon > 0 {
		reader.memory = filepath.Join("/proc", strconv.Itoa(daemon), "root", memory)
	}
	found := map[string]*engine.Held{}
	add := func(id, format string, args ...any) {
		if !strings.HasPrefix(id, "m_") {
			return
		}
		if found[id] == nil {
			r, _ := reader.readRecord(id) // of an ephemeral one without a daemon there is none
			found[id] = &engine.Held{Machine: id, SandboxID: r.SandboxID}
		}
		found[id].Things = append(found[id].Things, fmt.Sprintf(format, args...))
	}
	for _, id := range root.Children() {
		add(id, "cgroup outpost-%s/%s", installation, id)
		for _, pid := range root.Child(id).Processes() {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			if err != nil || found[id] == nil { // it ended meanwhile
				continue
			}
			add(id, "process %d", pid)
			found[id].Busy = found[id].Busy || !strings.HasPrefix(exe, "/memfd:outpost-agent")
		}
	}
	for dir, what := range map[string]string{reader.dir: "folder", reader.disks: "disk"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		for _, d := range entries {
			add(strings.TrimSuffix(d.Name(), ".img"), "%s %s", what, filepath.Join(dir, d.Name()))
		}
	}
	for device, file := range loops() {
		if filepath.Dir(file) == reader.disks {
			add(strings.TrimSuffix(filepath.Base(file), ".img"), "loop device %s", device)
		}
	}
	all := make([]engine.Held, 0, len(found))
	for _, h := range found {
		all = append(all, *h)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Machine < all[j].Machine })
	return all, nil
}

// loops are the loop devices in use with the files behind them. Source: Documentation/ABI/testing/sysfs-block-loop.
func loops() map[string]string {
	all := map[string]string{}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			device := filepath.Base(filepath.Dir(filepath.Dir(f)))
			all["/dev/"+device] = strings.TrimSuffix(strings.TrimSpace(string(b)), " (deleted)")
		}
	}
	return all
}

// resolved is the path that the kernel knows a folder by; one that is not there keeps its own.
func resolved(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}
