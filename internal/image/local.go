package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

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
		var src source
		var done func()
		if src, done, err = openLocal(r.form, root, rel); err == nil {
			defer done()
			made, err = s.convert(ctx, r, src, r.String(), false, step) // no registry may name its layers
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
	return unavailable(r, err, reason)
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
func openLocal(f form, root *os.Root, rel string) (src source, done func(), err error) {
	var files blobs
	if f == layout {
		dir, err := root.OpenRoot(rel)
		if err != nil {
			return src, nil, err
		}
		files, done = dirBlobs{dir}, func() { dir.Close() }
	} else {
		file, err := openFile(root, rel)
		if err != nil {
			return src, nil, err
		}
		done = func() { file.Close() }
		if files, err = indexTar(file); err != nil {
			done()
			return src, nil, err
		}
	}
	if f == dockerArchive {
		src, err = savedImage(files)
	} else {
		src, err = layoutImage(files)
	}
	if err != nil {
		done()
	}
	return src, done, err
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
