package image

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"outpost.run/outpost/sandbox"
)

func (s *Store) pinPath(owner string) string { return filepath.Join(s.dir, "pins", owner+".json") }

// Pin keeps an image for owner, an id that can be a file's name, over restarts: whatever becomes of its reference, its
// layers stay until Unpin, and ByDigest finds it.
func (s *Store) Pin(owner string, img Image) error {
	m := manifest{Ref: img.Ref, Config: img.Config}
	for _, l := range img.Layers {
		m.Layers = append(m.Layers, strings.TrimSuffix(filepath.Base(l), ".erofs"))
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	unlock, err := s.lock(s.ctx, indexLock) // so that no layer goes while it is being pinned
	if err != nil {
		return err
	}
	defer unlock()
	if _, ok := s.imageOf(m); !ok {
		return sandbox.Errorf(sandbox.ImageNotFound, nil, "image %s was removed meanwhile: try again", img.Ref)
	}
	return full(s.writeWhole(s.pinPath(owner), b))
}

// Unpin is Pin's opposite; nil for an owner that has nothing pinned.
func (s *Store) Unpin(owner string) error {
	if err := os.Remove(s.pinPath(owner)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Pinned are the owners that have something pinned.
func (s *Store) Pinned() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "pins"))
	owners := make([]string, len(entries))
	for i, e := range entries {
		owners[i] = strings.TrimSuffix(e.Name(), ".json")
	}
	return owners, err
}

// PinOf gives the image that is pinned for owner.
func (s *Store) PinOf(owner string) (Image, bool) {
	m, err := readManifest(s.pinPath(owner))
	if err != nil {
		return Image{}, false
	}
	return s.imageOf(m)
}

// ByDigest gives the image of that digest, if it is pinned or an image that is ready.
func (s *Store) ByDigest(digest string) (Image, bool) {
	for _, kind := range []string{"pins", "refs"} {
		paths, _ := filepath.Glob(filepath.Join(s.dir, kind, "*.json")) // the pattern is good
		for _, path := range paths {
			if m, err := readManifest(path); err == nil && m.digest() == digest {
				if img, ok := s.imageOf(m); ok {
					return img, true
				}
			}
		}
	}
	return Image{}, false
}
