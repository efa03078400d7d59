package guestos

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// tree is what a kernel's package holds of interest, by its path.
type tree struct {
	image   []byte
	release string // 6.12.107+deb13-cloud-amd64
	files   map[string][]byte
}

// readTree reads a package's files.
func readTree(data []byte) (*tree, error) {
	t := &tree{files: map[string][]byte{}}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean("/" + h.Name)
		release, isImage := strings.CutPrefix(name, "/boot/vmlinuz-")
		if h.Typeflag != tar.TypeReg || !isImage && !strings.Contains(name, "/lib/modules/") && !strings.Contains(name, "/usr/lib/modules/") {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		if isImage {
			t.image, t.release = b, release
		} else {
			t.files[name] = b
		}
	}
	if t.image == nil {
		return nil, errors.New("the package holds no kernel (/boot/vmlinuz-…)")
	}
	return t, nil
}

// source gives the modules of the package.
func (t *tree) source() (*Source, error) {
	s := &Source{Release: t.release, read: map[string]func() ([]byte, error){}}
	for name, data := range t.files {
		switch {
		case path.Base(name) == "modules.builtin":
			s.builtin = strings.Fields(string(data))
		case strings.Contains(path.Base(name), ".ko"):
			s.read[moduleName(name)] = func() ([]byte, error) { return plainModule(name, bytes.NewReader(data)) }
		}
	}
	if s.builtin == nil {
		return nil, fmt.Errorf("kernel %s came without a list of what is built in", t.release)
	}
	return s, nil
}
