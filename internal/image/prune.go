package image

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Remove removes an image, and the layers that nothing else has. Machines that have them mounted keep them. nil for what
// is gone.
func (s *Store) Remove(ref string) error {
	r, err := parseReference(ref)
	if err != nil {
		return err
	}
	unlock, err := s.lock(s.ctx, indexLock)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(s.refPath(r.String())); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, err = s.dropOrphans(nil)
	return err
}

// Spare says what Prune may not take; nil fields spare nothing.
type Spare struct {
	Ref   func(ref string) bool  // an image
	Layer func(path string) bool // a layer's file, whoever else has it
}

// Prune removes what was unused for longest, images and layers kept by themselves, until all layers together are at most
// budget bytes, and layers that nothing has. It answers the references removed. What is pinned and what spare says stays.
func (s *Store) Prune(budget int64, spare Spare) ([]string, error) {
	unlock, err := s.lock(s.ctx, indexLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	size, err := s.dropOrphans(spare.Layer)
	if err != nil || size <= budget {
		return nil, err
	}
	all, err := s.prunable(spare.Ref)
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, x := range all {
		if err := os.Remove(x.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return removed, err
		}
		if x.ref != "" {
			removed = append(removed, x.ref)
		}
		if size, err := s.dropOrphans(spare.Layer); err != nil || size <= budget {
			return removed, err
		}
	}
	return removed, nil
}

// holder is a file that keeps layers.
type holder struct {
	path   string
	ref    string // of an image
	usedAt time.Time
}

// prunable are the images and kept layers that may go, the longest unused first.
func (s *Store) prunable(spared func(ref string) bool) ([]holder, error) {
	infos, err := s.List()
	if err != nil {
		return nil, err
	}
	var all []holder
	for _, i := range infos {
		if spared == nil || !spared(i.Ref) {
			all = append(all, holder{s.refPath(i.Ref), i.Ref, i.UsedAt})
		}
	}
	kept, err := os.ReadDir(filepath.Join(s.dir, "kept"))
	if err != nil {
		return nil, err
	}
	for _, k := range kept {
		if st, err := k.Info(); err == nil {
			all = append(all, holder{filepath.Join(s.dir, "kept", k.Name()), "", st.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b holder) int { return a.usedAt.Compare(b.usedAt) })
	return all, nil
}

// dropOrphans removes layers that nothing has, and answers the size of those that stay. The store is locked.
func (s *Store) dropOrphans(inUse func(path string) bool) (int64, error) {
	held, err := s.held()
	if err != nil {
		return 0, err
	}
	layers, err := os.ReadDir(filepath.Join(s.dir, "layers"))
	if err != nil {
		return 0, err
	}
	var size int64
	for _, e := range layers {
		path := filepath.Join(s.dir, "layers", e.Name())
		if !held[strings.TrimSuffix(e.Name(), ".erofs")] && (inUse == nil || !inUse(path)) {
			if err := os.Remove(path); err != nil {
				return 0, err
			}
			continue
		}
		info, err := e.Info()
		if err != nil {
			return 0, err
		}
		size += info.Size()
	}
	return size, nil
}

// held are the digests of all layers that an image, one that is being made, a pin or a key has.
func (s *Store) held() (map[string]bool, error) {
	s.mu.Lock()
	held := maps.Clone(s.expected)
	s.mu.Unlock()
	for _, kind := range []string{"refs", "pins"} {
		paths, err := filepath.Glob(filepath.Join(s.dir, kind, "*.json"))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			m, err := readManifest(path)
			if errors.Is(err, os.ErrNotExist) { // a pin went meanwhile
				continue
			} else if err != nil {
				return nil, err
			}
			for _, l := range m.Layers {
				held[l] = true
			}
		}
	}
	kept, err := os.ReadDir(filepath.Join(s.dir, "kept"))
	if err != nil {
		return nil, err
	}
	for _, k := range kept {
		b, err := os.ReadFile(filepath.Join(s.dir, "kept", k.Name()))
		if err != nil {
			return nil, err
		}
		held[string(b)] = true
	}
	return held, nil
}
