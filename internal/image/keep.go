package image

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// Info is one image of the store, for people.
type Info struct {
	Ref       string
	Digest    string
	SizeBytes int64 // of its layers, those it shares with others included
	CreatedAt time.Time
	UsedAt    time.Time // when it was last asked for
	Private   bool      // the host's credentials were used to get it
}

// manifest is an image as it lies in refs/, named by the sum of its reference; its modification time is its last use.
type manifest struct {
	Ref       string    `json:"ref"`
	Layers    []string  `json:"layers"` // hex sha256, the lowest first
	Config    Config    `json:"config"`
	Private   bool      `json:"private,omitempty"` // the host's credentials were used to get it
	CreatedAt time.Time `json:"created_at"`
}

func (m manifest) digest() string {
	b, _ := json.Marshal(struct { // strings alone: can't fail
		Layers []string
		Config Config
	}{m.Layers, m.Config})
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (s *Store) layerPath(digest string) string {
	return filepath.Join(s.dir, "layers", digest+".erofs")
}

func (s *Store) refPath(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return filepath.Join(s.dir, "refs", hex.EncodeToString(sum[:])+".json")
}

// Get gives an image that is ready, and counts as a use of it.
func (s *Store) Get(ref string) (Image, bool) {
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, false
	}
	path := s.refPath(r.String())
	m, err := readManifest(path)
	if err != nil {
		return Image{}, false
	}
	img, ok := s.imageOf(m)
	if ok {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // a use unnoted only moves it up in the order of removal
	}
	return img, ok
}

// imageOf is the image of a manifest, if its layers are all there.
func (s *Store) imageOf(m manifest) (Image, bool) {
	img := Image{Ref: m.Ref, Digest: m.digest(), Config: m.Config}
	for _, l := range m.Layers {
		if _, err := os.Stat(s.layerPath(l)); err != nil {
			return Image{}, false
		}
		img.Layers = append(img.Layers, s.layerPath(l))
	}
	return img, true
}

func readManifest(path string) (manifest, error) {
	var m manifest
	b, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

// List tells all images that are ready, by reference.
func (s *Store) List() ([]Info, error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "refs", "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, path := range paths {
		m, err := readManifest(path)
		if errors.Is(err, os.ErrNotExist) { // removed meanwhile
			continue
		} else if err != nil {
			return nil, sandbox.Errorf(sandbox.Internal, err, "the image store has an unreadable entry; image rm and build mend it")
		}
		info := Info{Ref: m.Ref, Digest: m.digest(), CreatedAt: m.CreatedAt, Private: m.Private}
		for _, l := range m.Layers {
			if st, err := os.Stat(s.layerPath(l)); err == nil {
				info.SizeBytes += st.Size()
			}
		}
		if st, err := os.Stat(path); err == nil {
			info.UsedAt = st.ModTime()
		}
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b Info) int { return cmp.Compare(a.Ref, b.Ref) })
	return all, nil
}

// keep records an image whose layers are in the store.
func (s *Store) keep(ref string, m manifest) (Image, error) {
	m.Ref, m.CreatedAt = ref, time.Now().UTC()
	b, err := json.Marshal(m)
	if err != nil {
		return Image{}, err
	}
	if err := s.writeWhole(s.refPath(ref), b); err != nil {
		return Image{}, err
	}
	img, ok := s.Get(ref)
	if !ok {
		return Image{}, sandbox.Errorf(sandbox.Internal, nil, "a layer of the image vanished while it was made")
	}
	return img, nil
}

// writeWhole writes a small file so that it is there in full or not at all, the power going off included.
func (s *Store) writeWhole(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "file-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // else another process may take it for a leftover
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(f.Name(), path), syncDir(filepath.Dir(path)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
