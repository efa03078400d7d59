package image

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// Names by which a layer of a registry says what it takes away. Source: OCI image specification, layer.md, Whiteouts.
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
)

// tarReader puts a tar stream into a tree.
type tarReader struct {
	tree  *tree
	spool io.Writer // takes the files' content
	at    int64     // where the spool is
	oci   bool      // the stream is a layer of a registry: names may take away
	left  int64     // bytes of content that may still come
}

// read reads the stream to its end, what follows the tar included. Errors: *broken, what is wrong with the stream; the
// stream's own.
func (r *tarReader) read(ctx context.Context, stream io.Reader) error {
	r.left = r.tree.bounds.Bytes
	stream = &reading{ctx, stream, r.left + int64(r.tree.bounds.Files)*4096 + 1<<20}
	tr := tar.NewReader(stream)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			_, err := io.Copy(io.Discard, stream)
			return err
		}
		if err == nil {
			err = r.entry(h, tr)
		}
		switch {
		case err == nil:
		case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, io.ErrUnexpectedEOF):
			return brokenf("it is no tar archive, or is cut off: %v", err)
		default:
			return err
		}
	}
}

// reading ends with its context, and after so many bytes: headers and padding are bounded with the content.
type reading struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (r *reading) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(b)
	if r.left -= int64(n); r.left < 0 {
		return n, brokenf("it is larger than its bounds")
	}
	return n, err
}

func (r *tarReader) entry(h *tar.Header, body io.Reader) error {
	name := h.Name
	if dir, base := path.Split(strings.TrimRight(name, "/")); r.oci && strings.HasPrefix(base, whiteoutPrefix) {
		return r.takeAway(dir, base)
	}
	e := &entry{
		mode: h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSticky), uid: id(h.Uid), gid: id(h.Gid), mtime: sane(h.ModTime), xattrs: attributes(h),
	}
	switch h.Typeflag {
	case tar.TypeDir:
		e.kind = directory
	case tar.TypeReg, tar.TypeGNUSparse:
		return r.file(name, e, h.Size, body)
	case tar.TypeLink:
		return r.tree.link(name, h.Linkname)
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath || strings.ContainsRune(h.Linkname, 0) {
			return brokenf("%.100q is a link to nothing that can be", name)
		}
		e.kind, e.target, e.mode = symlink, strings.Clone(h.Linkname), 0o777
	case tar.TypeFifo:
		e.kind = fifo
	case tar.TypeChar:
		if h.Devmajor != 0 || h.Devminor != 0 {
			return r.tree.count() // no machine opens devices of its image
		}
		e.kind = whiteout // as overlayfs has it
	case tar.TypeBlock, tar.TypeXGlobalHeader:
		return r.tree.count()
	default:
		return brokenf("%.100q is of a kind that is not known, %q", name, h.Typeflag)
	}
	return r.tree.put(name, e)
}

func (r *tarReader) takeAway(dir, base string) error {
	switch {
	case base == opaqueMarker:
		return r.tree.hide(dir)
	case strings.HasPrefix(base, ".wh..wh."): // notes of aufs, for itself
		return r.tree.count()
	case base == whiteoutPrefix, base == whiteoutPrefix+".", base == whiteoutPrefix+"..":
		return brokenf("%.100q takes nothing away", dir+base)
	}
	return r.tree.put(dir+strings.TrimPrefix(base, whiteoutPrefix), &entry{kind: whiteout})
}

func (r *tarReader) file(name string, e *entry, size int64, body io.Reader) error {
	if size < 0 || size > r.left {
		return brokenf("its files are of more than %d bytes together", r.tree.bounds.Bytes)
	}
	e.kind, e.content = regular, extent{r.at, size}
	n, err := io.Copy(r.spool, body)
	r.at += n
	if r.left -= n; err != nil {
		return err
	}
	if n != size {
		return brokenf("%.100q is cut off", name)
	}
	return r.tree.put(name, e)
}

// id is a user or group id that a machine maps; others are nobody's.
func id(n int) int {
	if n < 0 || n > 65535 {
		return 65534
	}
	return n
}

// sane is a time that a file can have.
func sane(t time.Time) time.Time {
	if t.Unix() < 0 || t.Unix() > evergreen.Unix() {
		return time.Unix(0, 0)
	}
	return t.Truncate(time.Second)
}

// attributes are the extended attributes that an image may set: those that mean nothing to the kernel. File capabilities
// would never count, since programs have no_new_privs; overlayfs's own would tell it of layers that are not there. Nobody's
// program needs more of them than ext4 can keep of one file: then none is kept. They are copies, as those of a header
// share the memory of all that it has.
func attributes(h *tar.Header) map[string]string {
	const prefix, most = "SCHILY.xattr.", 4 << 10
	var set map[string]string
	size := 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, prefix)
		if !ok || !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") || len(name) > maxName {
			continue
		}
		if size += len(name) + len(value); size > most {
			return nil
		}
		if set == nil {
			set = map[string]string{}
		}
		set[strings.Clone(name)] = strings.Clone(value)
	}
	return set
}
