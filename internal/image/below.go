package image

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/erofs/go-erofs"
)

// below are the layers under one that is being made, seen as one tree. nil is the empty tree.
type below struct {
	layers []fs.FS // the lowest first
	files  []*os.File
}

// opaqueAttr marks a directory that hides what is below it. Source: kernel, overlayfs.rst.
const opaqueAttr = "trusted.overlay.opaque"

func openBelow(paths []string) (*below, error) {
	b := &below{}
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			b.close()
			return nil, err
		}
		b.files = append(b.files, f)
		layer, err := erofs.Open(f)
		if err != nil {
			b.close()
			return nil, err
		}
		b.layers = append(b.layers, layer)
	}
	return b, nil
}

func (b *below) close() {
	for _, f := range b.files {
		f.Close()
	}
}

// lookup tells what lies at a path none of whose parts but the last may be a link; "" is the root.
func (b *below) lookup(name string) (entry, bool) {
	if b == nil {
		return entry{}, false
	}
	for i := len(b.layers) - 1; i >= 0; i-- {
		e, found, over := lookupIn(b.layers[i], name)
		if found || over {
			return e, found
		}
	}
	return entry{}, false
}

// lookupIn looks in one layer; over: what the layers below it have there does not count.
func lookupIn(layer fs.FS, name string) (e entry, found, over bool) {
	parts := strings.Split(name, "/")
	if name == "" {
		parts = nil
	}
	for i := 0; ; i++ {
		at := "."
		if i > 0 {
			at = strings.Join(parts[:i], "/")
		}
		info, err := fs.Lstat(layer, at)
		if err != nil {
			return e, false, over || !errors.Is(err, fs.ErrNotExist)
		}
		e = entryOf(layer, at, info)
		if e.kind == whiteout {
			return e, false, true
		}
		if i == len(parts) {
			return e, true, true
		}
		if e.kind != directory {
			return e, false, true
		}
		over = over || e.opaque
	}
}

func entryOf(layer fs.FS, at string, info fs.FileInfo) entry {
	st, _ := info.Sys().(*erofs.Stat) // it is that in every layer
	e := entry{kind: regular, mode: st.Mode & (fs.ModePerm | fs.ModeSticky), uid: int(st.UID), gid: int(st.GID), mtime: time.Unix(int64(st.Mtime), 0)}
	switch st.Mode.Type() {
	case fs.ModeDir:
		e.kind, e.opaque = directory, st.Xattrs[opaqueAttr] == "y"
	case fs.ModeSymlink:
		e.kind = symlink
		e.target, _ = fs.ReadLink(layer, at)
	case fs.ModeNamedPipe:
		e.kind = fifo
	case fs.ModeDevice | fs.ModeCharDevice: // no other is let in
		e.kind = whiteout
	}
	return e
}
