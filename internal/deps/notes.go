package deps

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// note is what a layer does not tell of its set. It is worth nothing without its layer.
type note struct {
	Set         Set
	InstalledAt time.Time
}

// notesFor is how long the note of a set that nobody asks for is kept; its layer goes by the image store's budget.
const notesFor = 90 * 24 * time.Hour

func openNotes(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	for _, f := range files {
		info, statErr := f.Info()
		if statErr == nil && (time.Since(info.ModTime()) > notesFor || !strings.HasSuffix(f.Name(), ".json")) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
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
		return Set{}, false
	}
	n.Set.Layer = layer
	now := time.Now()
	_ = os.Chtimes(in.notePath(key), now, now) // a use unnoted only lets it go earlier
	return n.Set, true
}

// keep notes a set; lost with the power, it is installed again.
func (in *Installer) keep(set Set) error {
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
