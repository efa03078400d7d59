package deps

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// note is what a layer does not tell of its set. It is worth nothing without its layer.
type note struct {
	Set         Set
	InstalledAt time.Time
}

// notesMost is how many are kept. A note that goes early costs an installation; layers go by the image store's budget.
const notesMost = 10_000

func openNotes(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unfinished, err := filepath.Glob(filepath.Join(dir, "*.new"))
	for _, path := range unfinished {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// dropNotes removes those that were not used for longest, where there are too many.
func dropNotes(dir string, most int) {
	files, err := os.ReadDir(dir)
	if err != nil || len(files) <= most {
		return
	}
	used := map[string]time.Time{}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			used[f.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(files, func(a, b os.DirEntry) int { return used[a.Name()].Compare(used[b.Name()]) })
	for _, f := range files[:len(files)-most*9/10] {
		_ = os.Remove(filepath.Join(dir, f.Name())) // else the next time
	}
}

func (in *Installer) notePath(key string) string { return filepath.Join(in.Dir, key+".json") }

// kept gives a set that is there and, unless all of it is exact, fresh.
func (in *Installer) kept(key string, exact bool) (Set, bool) {
	b, err := os.ReadFile(in.notePath(key))
	if err != nil {
		return Set{}, false
	}
	var n note
	if json.Unmarshal(b, &n) != nil || !exact && time.Since(n.InstalledAt) > freshFor {
		return Set{}, false
	}
	layer, ok := in.Layers.Made(key)
	if !ok {
		_ = os.Remove(in.notePath(key)) // it is installed anew, and noted then
		return Set{}, false
	}
	n.Set.Layer = layer
	now := time.Now()
	_ = os.Chtimes(in.notePath(key), now, now) // a use unnoted only lets it go earlier
	return n.Set, true
}

// keep notes a set; lost with the power, it is installed again.
func (in *Installer) keep(set Set) error {
	dropNotes(in.Dir, notesMost)
	b, err := json.Marshal(note{Set: set, InstalledAt: time.Now()})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(in.Dir, "note-*.new")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), in.notePath(set.Key))
}
