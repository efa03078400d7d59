package image

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/erofs/go-erofs"
)

// writeLayer writes the tree at dir as an uncompressed EROFS image to out. Equal trees give equal bytes: entries go in
// in order of name, and every time after stamp (the tree's newest packaged file) becomes stamp, so that the clock of
// the building host is not seen; evergreen alone stays. Set-user-id and set-group-id bits and extended attributes are left out: programs have
// no_new_privs. A hard link becomes a copy.
func writeLayer(dir string, out io.WriteSeeker, stamp time.Time, step func(done int64)) error {
	w := erofs.Create(out, erofs.WithBuildTime(uint64(stamp.Unix()), 0), erofs.WithTempDir(filepath.Dir(dir)))
	var done int64
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		done++
		step(done)
		if err := writeEntry(w, p, filepath.Join("/", rel), d, stamp); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func writeEntry(w *erofs.Writer, p, name string, d fs.DirEntry, stamp time.Time) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm() | info.Mode()&fs.ModeSticky
	switch {
	case d.IsDir():
		err = w.Mkdir(name, mode)
	case info.Mode().IsRegular():
		err = copyFile(w, p, name)
	case info.Mode()&fs.ModeSymlink != 0:
		var target string
		if target, err = os.Readlink(p); err == nil {
			err = w.Symlink(target, name)
		}
	case info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0: // what the overlay left for a removed file
		err = w.Mknod(name, syscall.S_IFCHR, 0)
	default:
		return fmt.Errorf("a %s does not belong in an image", info.Mode().Type())
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		if err := w.Chmod(name, mode); err != nil {
			return err
		}
	}
	if err := w.Chown(name, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	mtime := info.ModTime().Truncate(time.Second)
	if mtime.After(stamp) && !mtime.Equal(evergreen) {
		mtime = stamp
	}
	return w.Chtimes(name, mtime, mtime)
}

func copyFile(w *erofs.Writer, p, name string) error {
	src, err := os.Open(p)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := w.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Close()
}
