package image

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// takeFolder makes an image of a root file system that lies in a folder; file systems mounted below it are left out.
func (s *Store) takeFolder(ctx context.Context, r reference, root *os.Root, rel string, step func(string, int64, int64)) (Image, error) {
	from, err := root.OpenRoot(rel)
	if err != nil {
		return Image{}, err
	}
	defer from.Close()
	dir, release, err := s.tempDir()
	if err != nil {
		return Image{}, err
	}
	defer release()
	spool, err := os.OpenFile(filepath.Join(dir, "spool"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return Image{}, err
	}
	defer spool.Close()
	share := s.room.share()
	defer share.end()
	w := folderReader{root: from, tree: newTree(s.bounds, nil), spool: metered{spool, share}, left: s.bounds.Bytes, ctx: ctx, step: step}
	if err := fs.WalkDir(from.FS(), ".", w.entry); err != nil {
		return Image{}, full(err)
	}
	digest, err := s.keepTree(ctx, "", dir, w.tree, spool, func(n int64) { step("write", n, 0) })
	if err != nil {
		return Image{}, full(err)
	}
	return s.keep(r.String(), manifest{Layers: []string{digest}, Config: s.configOf(v1.Config{}, []string{digest})})
}

// folderReader puts a folder into a tree.
type folderReader struct {
	root   *os.Root
	tree   *tree
	spool  io.Writer
	at     int64
	left   int64
	device uint64
	ctx    context.Context
	step   func(string, int64, int64)
}

func (w *folderReader) entry(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	info, err := w.root.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if name == "." {
		w.device = st.Dev
	} else if d.IsDir() && st.Dev != w.device { // an overlay's files tell other devices, its directories don't
		return fs.SkipDir
	}
	w.step("unpack", int64(w.tree.entries), 0)
	e := &entry{mode: info.Mode() & (fs.ModePerm | fs.ModeSticky), uid: id(int(st.Uid)), gid: id(int(st.Gid)), mtime: sane(info.ModTime())}
	switch info.Mode().Type() {
	case fs.ModeDir:
		e.kind = directory
	case fs.ModeSymlink:
		e.kind, e.mode = symlink, 0o777
		if e.target, err = w.root.Readlink(name); err != nil {
			return err
		}
	case fs.ModeNamedPipe:
		e.kind = fifo
	case 0:
		if err := w.content(name, e); err != nil {
			return err
		}
	default: // sockets and devices mean nothing in a machine
		return nil
	}
	return w.tree.put(name, e)
}

func (w *folderReader) content(name string, e *entry) error {
	f, err := openFile(w.root, name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w.spool, io.LimitReader(f, w.left+1))
	if err != nil {
		return err
	}
	if w.left -= n; w.left < 0 {
		return brokenf("its files are of more than %d bytes together", w.tree.bounds.Bytes)
	}
	e.kind, e.content = regular, extent{w.at, n}
	w.at += n
	return nil
}
