package image

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/erofs/go-erofs"
)

// write writes the tree as an EROFS file, as writeLayer does a folder; spool has the files' content.
func (t *tree) write(ctx context.Context, out *os.File, spool io.ReaderAt, step func(done int64)) error {
	w := erofs.Create(out, erofs.WithBuildTime(0, 0), erofs.WithTempDir(filepath.Dir(out.Name())))
	p := treeWriter{ctx: ctx, w: w, spool: spool, step: step}
	if err := p.entry("/", t.root); err != nil {
		return err
	}
	return w.Close()
}

type treeWriter struct {
	ctx   context.Context
	w     *erofs.Writer
	spool io.ReaderAt
	done  int64
	step  func(done int64)
}

func (p *treeWriter) entry(name string, e *entry) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	p.done++
	p.step(p.done)
	if err := p.create(name, e); err != nil {
		return err
	}
	if e.kind != symlink {
		if err := p.w.Chmod(name, e.mode); err != nil {
			return err
		}
	}
	if err := p.w.Chown(name, e.uid, e.gid); err != nil {
		return err
	}
	if err := p.w.Chtimes(name, e.mtime, e.mtime); err != nil {
		return err
	}
	for _, attr := range sortedKeys(e.xattrs) {
		if err := p.w.Setxattr(name, attr, e.xattrs[attr]); err != nil {
			return err
		}
	}
	if e.opaque {
		if err := p.w.Setxattr(name, opaqueAttr, "y"); err != nil {
			return err
		}
	}
	for _, child := range sortedKeys(e.children) {
		c := e.children[child]
		if c.kind == whiteout && e.opaque {
			continue // nothing is below it
		}
		if err := p.entry(filepath.Join(name, child), c); err != nil {
			return err
		}
	}
	return nil
}

func (p *treeWriter) create(name string, e *entry) error {
	if e.mtime.IsZero() {
		e.mtime = time.Unix(0, 0)
	}
	switch e.kind {
	case directory:
		return p.w.Mkdir(name, e.mode)
	case symlink:
		return p.w.Symlink(e.target, name)
	case fifo:
		return p.w.Mknod(name, syscall.S_IFIFO, 0)
	case whiteout:
		return p.w.Mknod(name, syscall.S_IFCHR, 0)
	}
	f, err := p.w.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, io.NewSectionReader(p.spool, e.content.offset, e.content.size)); err != nil {
		return err
	}
	return f.Close()
}
