package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"outpost.run/outpost/sandbox"
)

// local makes the image of a path. Errors: ImageNotFound, with the reason.
func (s *Store) local(ctx context.Context, r reference, step func(string, int64, int64)) (Image, error) {
	step("resolve", 0, 0)
	root, rel, err := s.beneath(r)
	if err != nil {
		return Image{}, err
	}
	defer root.Close()
	var made Image
	switch r.form {
	case folder:
		made, err = s.takeFolder(ctx, r, root, rel, step)
	default:
		var img v1.Image
		var done func()
		if img, done, err = openLocal(r.form, root, rel); err == nil {
			defer done()
			made, err = s.convert(ctx, r, img, "", false, step)
		}
	}
	return made, localError(ctx, r, err)
}

func localError(ctx context.Context, r reference, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	if _, ok := errors.AsType[*sandbox.Error](err); ok {
		return err
	}
	reason := "it can't be read as one"
	var wrong *broken
	switch {
	case errors.As(err, &wrong):
		reason = wrong.reason
	case errors.Is(err, fs.ErrNotExist):
		reason = "it is not there"
	}
	return sandbox.Errorf(sandbox.ImageNotFound, err, "image %s can't be had: %s", r, reason)
}

// beneath finds the root below which a path lies. What is opened by it never leaves it, whatever links lie on the way.
func (s *Store) beneath(r reference) (root *os.Root, rel string, err error) {
	for _, dir := range s.roots {
		rel, err := filepath.Rel(dir, r.path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		if root, err = os.OpenRoot(dir); err != nil {
			return nil, "", sandbox.Errorf(sandbox.ImageNotFound, err, "image %s can't be had: its folder of images.local_roots can't be opened", r)
		}
		return root, rel, nil
	}
	return nil, "", sandbox.Errorf(sandbox.ImageNotFound, nil, "image %s is below none of the folders that images.local_roots lists", r)
}

// openLocal opens an image that lies in a file or folder; done when it is no longer read.
func openLocal(f form, root *os.Root, rel string) (img v1.Image, done func(), err error) {
	if f == dockerArchive {
		img, err = tarball.Image(func() (io.ReadCloser, error) { return openFile(root, rel) }, nil)
		return img, func() {}, err
	}
	var files blobs
	if f == layout {
		dir, err := root.OpenRoot(rel)
		if err != nil {
			return nil, nil, err
		}
		files, done = dirBlobs{dir}, func() { dir.Close() }
	} else {
		file, err := openFile(root, rel)
		if err != nil {
			return nil, nil, err
		}
		done = func() { file.Close() }
		if files, err = indexTar(file); err != nil {
			done()
			return nil, nil, err
		}
	}
	img, err = layoutImage(files)
	if err != nil {
		done()
	}
	return img, done, err
}

// openFile opens a regular file; a fifo or a device never blocks it.
func openFile(root *os.Root, rel string) (*os.File, error) {
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, brokenf("%s is no file", path.Base(rel))
	}
	return f, nil
}

// blobs are the files of a layout.
type blobs interface {
	open(name string) (io.ReadCloser, error)
}

type dirBlobs struct{ *os.Root }

func (d dirBlobs) open(name string) (io.ReadCloser, error) { return openFile(d.Root, name) }

// tarBlobs are a layout's files within a tar.
type tarBlobs struct {
	file  io.ReaderAt
	where map[string]extent
}

func (t tarBlobs) open(name string) (io.ReadCloser, error) {
	e, ok := t.where[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(io.NewSectionReader(t.file, e.offset, e.size)), nil
}

func indexTar(f *os.File) (tarBlobs, error) {
	t := tarBlobs{f, map[string]extent{}}
	tr := tar.NewReader(f)
	for range 10_000 {
		h, err := tr.Next()
		if err == io.EOF {
			return t, nil
		} else if err != nil {
			return t, brokenf("it is no tar archive, or is cut off")
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return t, err
		}
		if h.Typeflag == tar.TypeReg {
			t.where[path.Clean(strings.TrimPrefix(h.Name, "/"))] = extent{at, h.Size}
		}
	}
	return t, brokenf("it has too many files for an archive of images")
}

// layoutImage is the one image of a layout. Source: OCI image specification, image-layout.md.
func layoutImage(files blobs) (v1.Image, error) {
	index, err := readBlob(files, "index.json")
	if err != nil {
		return nil, err
	}
	for range 3 { // an index may name another
		var list v1.IndexManifest
		if err := json.Unmarshal(index, &list); err != nil {
			return nil, brokenf("its index can't be read: %v", err)
		}
		one, err := pick(list.Manifests)
		if err != nil {
			return nil, err
		}
		raw, err := readDigest(files, one.Digest)
		if err != nil {
			return nil, err
		}
		if one.MediaType.IsIndex() {
			index = raw
			continue
		}
		var m v1.Manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, brokenf("its manifest can't be read: %v", err)
		}
		return partial.CompressedToImage(layoutCore{files, raw, m})
	}
	return nil, brokenf("its indexes name each other")
}

// pick chooses the image for this host: the only one, or the one for its platform.
func pick(list []v1.Descriptor) (v1.Descriptor, error) {
	if len(list) == 1 {
		return list[0], nil
	}
	for _, d := range list {
		if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH {
			return d, nil
		}
	}
	return v1.Descriptor{}, brokenf("it has %d images, and none that says it is for linux/%s", len(list), runtime.GOARCH)
}

func readBlob(files blobs, name string) ([]byte, error) {
	f, err := files.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if len(b) > maxConfigBytes {
		return nil, brokenf("%s is over %d MiB", path.Base(name), maxConfigBytes>>20)
	}
	return b, err
}

func readDigest(files blobs, d v1.Hash) ([]byte, error) {
	b, err := readBlob(files, blobName(d))
	if err != nil {
		return nil, err
	}
	if got, _, err := v1.SHA256(strings.NewReader(string(b))); err != nil || got != d {
		return nil, brokenf("%s is not what it is named by", d)
	}
	return b, nil
}

func blobName(d v1.Hash) string { return fmt.Sprintf("blobs/%s/%s", d.Algorithm, d.Hex) }

// layoutCore is what go-containerregistry makes an image of.
type layoutCore struct {
	files    blobs
	raw      []byte
	manifest v1.Manifest
}

func (l layoutCore) RawManifest() ([]byte, error)        { return l.raw, nil }
func (l layoutCore) MediaType() (types.MediaType, error) { return l.manifest.MediaType, nil }
func (l layoutCore) RawConfigFile() ([]byte, error) {
	return readDigest(l.files, l.manifest.Config.Digest)
}
func (l layoutCore) LayerByDigest(d v1.Hash) (partial.CompressedLayer, error) {
	for _, x := range l.manifest.Layers {
		if x.Digest == d {
			return layoutLayer{l.files, x}, nil
		}
	}
	return nil, fs.ErrNotExist
}

type layoutLayer struct {
	files blobs
	about v1.Descriptor
}

func (l layoutLayer) Digest() (v1.Hash, error) { return l.about.Digest, nil }
func (l layoutLayer) Compressed() (io.ReadCloser, error) {
	return l.files.open(blobName(l.about.Digest))
}
func (l layoutLayer) Size() (int64, error)                { return l.about.Size, nil }
func (l layoutLayer) MediaType() (types.MediaType, error) { return l.about.MediaType, nil }
