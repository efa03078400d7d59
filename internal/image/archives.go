package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs are the files of an image.
type blobs interface {
	open(name string) (content io.ReadCloser, size int64, err error)
}

type dirBlobs struct{ *os.Root }

func (d dirBlobs) open(name string) (io.ReadCloser, int64, error) {
	f, err := openFile(d.Root, name)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// tarBlobs are an image's files within a tar.
type tarBlobs struct {
	file  io.ReaderAt
	where map[string]extent
}

func (t tarBlobs) open(name string) (io.ReadCloser, int64, error) {
	e, ok := t.where[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return io.NopCloser(io.NewSectionReader(t.file, e.offset, e.size)), e.size, nil
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
func layoutImage(files blobs) (source, error) {
	index, err := readBlob(files, "index.json")
	if err != nil {
		return source{}, err
	}
	for range 3 { // an index may name another
		var list v1.IndexManifest
		if err := json.Unmarshal(index, &list); err != nil {
			return source{}, brokenf("its index can't be read: %v", err)
		}
		one, err := pick(list.Manifests)
		if err != nil {
			return source{}, err
		}
		raw, err := readDigest(files, one.Digest)
		if err != nil {
			return source{}, err
		}
		if one.MediaType.IsIndex() {
			index = raw
			continue
		}
		return manifestImage(files, raw)
	}
	return source{}, brokenf("its indexes name each other")
}

func manifestImage(files blobs, raw []byte) (src source, err error) {
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return src, brokenf("its manifest can't be read: %v", err)
	}
	config, err := readDigest(files, m.Config.Digest)
	if err != nil {
		return src, err
	}
	if err := json.Unmarshal(config, &src.config); err != nil {
		return src, brokenf("its configuration can't be read: %v", err)
	}
	for _, l := range m.Layers { // what they hold is verified by the configuration
		if err := src.add(files, blobName(l.Digest)); err != nil {
			return src, err
		}
	}
	return src, nil
}

// savedImage is the one image that docker save wrote.
func savedImage(files blobs) (src source, err error) {
	raw, err := readBlob(files, "manifest.json")
	if err != nil {
		return src, err
	}
	var list []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(raw, &list); err != nil || len(list) != 1 {
		return src, brokenf("its manifest tells of %d images, not of one (%v)", len(list), err)
	}
	config, err := readBlob(files, path.Clean(list[0].Config))
	if err != nil {
		return src, err
	}
	if err := json.Unmarshal(config, &src.config); err != nil {
		return src, brokenf("its configuration can't be read: %v", err)
	}
	for _, l := range list[0].Layers {
		if err := src.add(files, path.Clean(l)); err != nil {
			return src, err
		}
	}
	return src, nil
}

// add adds a layer that lies in a file.
func (s *source) add(files blobs, name string) error {
	f, size, err := files.open(name)
	if err != nil {
		return err
	}
	f.Close()
	s.layers = append(s.layers, sourceLayer{size, func() (io.ReadCloser, error) {
		f, _, err := files.open(name)
		return f, err
	}})
	return nil
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
	f, _, err := files.open(name)
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
	if got, _, err := v1.SHA256(bytes.NewReader(b)); err != nil || got != d {
		return nil, brokenf("%s is not what it is named by", d)
	}
	return b, nil
}

func blobName(d v1.Hash) string { return fmt.Sprintf("blobs/%s/%s", d.Algorithm, d.Hex) }
