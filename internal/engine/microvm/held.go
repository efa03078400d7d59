package microvm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
)

// FindHeld lists what carries an installation's mark on this host. It changes nothing and needs no Engine. Nothing tells whether a program
// runs in a guest: each that lives is taken for busy.
func FindHeld(dataDir, installation string) ([]engine.Held, error) {
	groups, err := host.FindHierarchies()
	if err != nil {
		return nil, err
	}
	root := groups.Group(groupOf(installation))
	reader := &Engine{dir: filepath.Join(dataDir, "vms")}
	found := map[string]*engine.Held{}
	add := func(id, format string, args ...any) {
		if !strings.HasPrefix(id, "m_") {
			return
		}
		if found[id] == nil {
			r, _ := reader.readRecord(id)
			found[id] = &engine.Held{Machine: id, SandboxID: r.SandboxID}
		}
		found[id].Things = append(found[id].Things, fmt.Sprintf(format, args...))
	}
	for _, id := range root.Children() {
		add(id, "cgroup %s/%s", groupOf(installation), id)
		for _, pid := range root.Child(id).Processes() {
			add(id, "process %d", pid)
			if found[id] != nil {
				found[id].Busy = true
			}
		}
	}
	for dir, what := range map[string]string{reader.dir: "folder", filepath.Join(dataDir, "vmdisks"): "disk"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		for _, d := range entries {
			add(strings.TrimSuffix(d.Name(), ".img"), "%s %s", what, filepath.Join(dir, d.Name()))
		}
	}
	all := make([]engine.Held, 0, len(found))
	for _, h := range found {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b engine.Held) int { return strings.Compare(a.Machine, b.Machine) })
	return all, nil
}
