package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"outpost.run/outpost/sandbox"
)

// Bounds are what a layer from a stream may come to; over them it is refused at once.
type Bounds struct {
	Bytes int64 // of all files' content; what hard links double may come to as much again
	Files int   // entries, directories that are only implied included
	Meta  int64 // bytes of whole paths, link targets and attributes, which are held in memory
}

// KeepTar turns a tar stream, every entry of which may be hostile, into a layer that is kept under key for Made, and
// answers the layer's file. The file's name is its content's sum: equal trees are kept once. It stays until it is unused
// for longest and the store is over its budget, see Prune.
//
// Errors: Invalid, the stream is no tar, or its entries make no tree or go over the bounds, with the reason; Capacity, the store's disk is full;
// Internal; the stream's and ctx's own.
func (s *Store) KeepTar(ctx context.Context, key string, tar io.Reader, b Bounds) (layerPath string, err error) {
	digest, _, err := s.keepStream(ctx, s.keptPath(key), tar, layerOf{bounds: b}, func(int64) {})
	var wrong *broken
	if errors.As(err, &wrong) {
		return "", sandbox.Errorf(sandbox.Invalid, nil, "the layer can't be made: %s", wrong.reason)
	}
	if err != nil {
		return "", err
	}
	return s.layerPath(digest), nil
}

// Made tells the layer that is kept under key, and counts as a use of it.
func (s *Store) Made(key string) (layerPath string, ok bool) {
	record := s.keptPath(key)
	digest, ok := s.recorded(record)
	if ok {
		now := time.Now()
		_ = os.Chtimes(record, now, now) // a use unnoted only moves it up in the order of removal
	}
	return s.layerPath(digest), ok
}

// layerOf says what a stream's layer is made for.
type layerOf struct {
	bounds Bounds
	oci    bool         // a layer of a registry: names may take away
	verify func() error // asked when the stream was read; nil for none
	below  []string     // the layers under it, the lowest first
}

// keepStream makes a layer of a tar stream and records it. It needs no lock: a stream may be slow. Errors:
// *broken, what is wrong with the stream.
func (s *Store) keepStream(ctx context.Context, record string, stream io.Reader, of layerOf, step func(done int64)) (digest string, used Bounds, err error) {
	dir, release, err := s.tempDir()
	if err != nil {
		return "", used, err
	}
	defer release()
	spool, err := os.OpenFile(filepath.Join(dir, "spool"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return "", used, err
	}
	defer spool.Close()
	under, err := openBelow(of.below)
	if err != nil {
		return "", used, err
	}
	defer under.close()
	share := s.room.share()
	defer share.end()
	memory := s.memory.share()
	defer memory.end()
	t := newTree(of.bounds, under)
	t.share, t.memory = share, memory
	r := tarReader{tree: t, spool: metered{spool, share}, oci: of.oci}
	err = r.read(ctx, stream)
	if err == nil && of.verify != nil {
		err = of.verify()
	}
	if err == nil {
		digest, err = s.keepTree(ctx, record, dir, t, spool, step)
	}
	return digest, Bounds{r.at, t.entries, t.meta}, full(err)
}

// keepTree writes a tree in a folder of its own and records it.
func (s *Store) keepTree(ctx context.Context, record, dir string, t *tree, spool io.ReaderAt, step func(done int64)) (digest string, err error) {
	out, err := os.OpenFile(filepath.Join(dir, "layer"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer out.Close()
	if err := t.write(ctx, out, spool, step); err != nil {
		return "", err
	}
	return s.takeIn(ctx, record, out)
}

// takeIn takes a finished layer into the store and records its digest in a file, see keptPath and madePath; "" for none.
func (s *Store) takeIn(ctx context.Context, record string, layer *os.File) (digest string, err error) {
	digest, err = sum(layer)
	if err != nil {
		return "", err
	}
	if err := errors.Join(layer.Chmod(0o444), layer.Sync()); err != nil {
		return "", full(err)
	}
	unlock, err := s.lock(ctx, indexLock) // so that nobody drops the layer before it is recorded
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := errors.Join(os.Rename(layer.Name(), s.layerPath(digest)), syncDir(filepath.Join(s.dir, "layers"))); err != nil {
		return "", err
	}
	if s.expect(digest); record == "" {
		return digest, nil
	}
	return digest, s.writeWhole(record, []byte(digest))
}

// sum is the content's, hexadecimal.
func sum(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	_, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// keptPath is the record of a layer that is kept by itself.
func (s *Store) keptPath(key string) string { return filepath.Join(s.dir, "kept", hashed(key)) }

// madePath is the record of an image's layer: it saves making it anew, and keeps nothing.
func (s *Store) madePath(key string) string { return filepath.Join(s.dir, "made", hashed(key)) }

func hashed(key string) string {
	h := sha256.Sum256([]byte(key))
	return hex.EncodeToString(h[:])
}

// recorded gives the layer of a record, if it is still there.
func (s *Store) recorded(record string) (digest string, ok bool) {
	b, err := os.ReadFile(record)
	if err != nil {
		return "", false
	}
	if _, err := os.Stat(s.layerPath(string(b))); err != nil {
		return "", false
	}
	s.expect(string(b))
	return string(b), true
}

// expect spares a layer for the image that is being made of it.
func (s *Store) expect(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flying) > 0 {
		s.expected[digest] = true
	}
}
