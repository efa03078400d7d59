package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// unpacked is what unpacking one package leaves for the package database.
type unpacked struct {
	list  []string // every path of the package, as dpkg's .list files have them
	stamp time.Time
}

// dropped are folders left out: bulk that programs don't read. dpkg inside is told the same (path-exclude).
var dropped = []string{"usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/"}

func isDropped(name string) bool {
	for _, d := range dropped {
		if strings.HasPrefix(name, d) {
			return true
		}
	}
	return strings.HasPrefix(name, "usr/share/doc/") && strings.Count(name, "/") >= 3 && path.Base(name) != "copyright"
}

// unpack puts a package's files into root. A path never leaves root: os.Root refuses. Like dpkg it keeps a link to a
// folder where a package brings that folder.
func unpack(root *os.Root, data []byte) (unpacked, error) {
	var u unpacked
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return u, nil
		} else if err != nil {
			return u, err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		u.list = append(u.list, "/"+dotIfEmpty(name))
		if h.ModTime.After(u.stamp) {
			u.stamp = h.ModTime
		}
		if name == "" || isDropped(name) {
			continue
		}
		if err := unpackEntry(root, name, h, tr); err != nil {
			return u, fmt.Errorf("%s: %w", name, err)
		}
	}
}

func dotIfEmpty(name string) string {
	if name == "" {
		return "."
	}
	return name
}

func unpackEntry(root *os.Root, name string, h *tar.Header, body io.Reader) error {
	mode := h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSticky)
	if h.Typeflag == tar.TypeDir {
		if info, err := root.Lstat(name); err == nil && (info.IsDir() || info.Mode()&fs.ModeSymlink != 0) {
			return nil
		}
		return makeDir(root, name, mode, h.Uid, h.Gid)
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		if info, err := root.Lstat(name); err == nil && info.IsDir() {
			return nil
		}
		return makeSymlink(root, h.Linkname, name)
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.Copy(f, body); err != nil {
			return err
		}
		if err := errors.Join(f.Chown(h.Uid, h.Gid), f.Chmod(mode)); err != nil {
			return err
		}
		return root.Chtimes(name, h.ModTime, h.ModTime)
	case tar.TypeLink:
		target := strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		if isDropped(target) {
			return nil
		}
		return root.Link(target, name)
	default:
		return fmt.Errorf("entry of type %q in a package", h.Typeflag)
	}
}

func makeDir(root *os.Root, name string, mode fs.FileMode, uid, gid int) error {
	if err := root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	if err := root.Chown(name, uid, gid); err != nil {
		return err
	}
	return root.Chmod(name, mode)
}

// makeSymlink makes name a link to target, in the place of a file or link that is there.
func makeSymlink(root *os.Root, target, name string) error {
	if have, err := root.Readlink(name); err == nil && have == target {
		return nil
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.Symlink(target, name)
}
