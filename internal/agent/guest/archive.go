package guest

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// pack sends a folder as a tar archive with the names below it: files, folders and symbolic links; what is none of these is
// left out. A file that is cut while it is read ends in zeros, as with GNU tar.
func (op *fileOp) pack() error {
	d, err := open(op.name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := readable(d, op.Path, 0); err != nil {
		return err
	}
	if _, err := d.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w := tar.NewWriter(op.out)
	p := packer{w: w, buf: make([]byte, agent.MaxData)}
	if err := p.folder(d, "", 0); err != nil {
		return err
	}
	return w.Close()
}

// readable refuses a folder in which something can't be read: an archive that has begun can only break off, and not say why.
func readable(d *os.File, name string, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	for {
		names, err := d.Readdirnames(256)
		for _, base := range names {
			if err := readableEntry(d, base, path.Join(name, base), depth); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func readableEntry(d *os.File, base, name string, depth int) error {
	var st unix.Stat_t
	if unix.Fstatat(int(d.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil // it is gone
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = unix.Faccessat(int(d.Fd()), base, unix.R_OK, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFDIR:
		var fd int
		if fd, err = unix.Openat(int(d.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
			folder := os.NewFile(uintptr(fd), base)
			defer folder.Close()
			return readable(folder, name, depth+1)
		}
	}
	if err == unix.EACCES || err == unix.EPERM {
		return refuse(sandbox.FilePermissionDenied, "path", "%s: permission denied: a folder is packed whole or not at all", name)
	}
	return nil // what it is when it is packed counts
}

type packer struct {
	w   *tar.Writer
	buf []byte
}

func (p packer) folder(d *os.File, prefix string, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if err := p.entry(d, name, prefix, depth); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p packer) entry(d *os.File, name, prefix string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil // it is gone
	}
	h := &tar.Header{
		Name: prefix + name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	h.ModTime = h.ModTime.Truncate(time.Second)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(d.Fd()), name, target)
		if err != nil {
			return nil
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target[:n])
		return p.w.WriteHeader(h)
	case unix.S_IFREG:
		h.Typeflag = tar.TypeReg
	default:
		return nil
	}
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: h.Name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if h.Typeflag == tar.TypeDir {
		if err := p.w.WriteHeader(h); err != nil {
			return err
		}
		return p.folder(f, h.Name, depth+1)
	}
	return p.file(f, h)
}

func (p packer) file(f *os.File, h *tar.Header) error {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() { // another took its name
		return err
	}
	h.Size = st.Size()
	if err := p.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{p.w}, onlyReader{io.LimitReader(f, h.Size)}, p.buf)
	for clear(p.buf); err == nil && n < h.Size; {
		var m int
		m, err = p.w.Write(p.buf[:min(int64(len(p.buf)), h.Size-n)])
		n += int64(m)
	}
	return err
}

// unpack makes what a tar archive holds in a folder, which it makes where it is missing: files, folders and links. What is there
// under a name is replaced, but for folders.
func (op *fileOp) unpack() error {
	if err := op.mkdir(); err != nil {
		return err
	}
	seen := 0 // bytes of dirs
	type dir struct {
		name string
		mode uint32
	}
	var dirs []dir // they get their modes when all is in them
	for r := tar.NewReader(op.body); ; {
		h, err := r.Next()
		if err == io.EOF {
			_, err = io.CopyBuffer(io.Discard, onlyReader{op.body}, make([]byte, agent.MaxData)) // archives are padded
			for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
				err = op.chmod(dirs[i].name, dirs[i].mode)
			}
			return err
		}
		if err != nil {
			return notArchive(err)
		}
		name, err := op.inside(h.Name)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			if err := makeParents(path.Join(name, "x")); err != nil {
				return err
			}
			if name != path.Clean(op.name) {
				if seen += len(name) + 64; seen > maxFolders {
					return refuse(sandbox.FileTooLarge, "", "the archive has too many folders for one: send it in parts")
				}
				dirs = append(dirs, dir{name, uint32(h.Mode) & 0o777})
			}
			continue
		}
		if err := op.unpackOne(name, h, r); err != nil {
			return err
		}
	}
}

// maxFolders bounds the memory that an archive's folders take, in bytes.
const maxFolders = 16 << 20

// inside is where an entry comes to lie. Error Invalid: it leaves the folder, or can't be.
func (op *fileOp) inside(name string) (string, error) {
	if len(name) >= unix.PathMax {
		return "", refuse(sandbox.Invalid, "", "the archive has an entry whose name is too long: %.200q", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", refuse(sandbox.Invalid, "", "the archive has an entry that leaves the folder: %.200q", name)
		}
	}
	return path.Join(op.name, name), nil
}

func notArchive(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return err
	}
	return refuse(sandbox.Invalid, "", "the body is no whole tar archive")
}

func (op *fileOp) unpackOne(name string, h *tar.Header, r io.Reader) error {
	if err := makeParents(name); err != nil {
		return err
	}
	d, base, err := parent(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := op.onDisk(d); err != nil {
		return err
	}
	dir := int(d.Fd())
	switch h.Typeflag {
	case tar.TypeReg:
		var read error
		err := writeWhole(d, base, uint32(h.Mode)&0o777, readerOf{r, &read})
		if read != nil {
			return notArchive(read)
		}
		return err
	case tar.TypeSymlink:
		if err := unix.Unlinkat(dir, base, 0); err != nil && err != unix.ENOENT {
			return err
		}
		return unix.Symlinkat(h.Linkname, dir, base)
	case tar.TypeLink:
		return op.hardLink(h.Linkname, dir, base)
	}
	return refuse(sandbox.Invalid, "", "the archive has an entry that is no file, folder or link: %.200q", h.Name)
}

// readerOf keeps a reader's error apart from that of the file it is written to.
type readerOf struct {
	io.Reader
	err *error
}

// Read implements io.Reader.
func (r readerOf) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err != nil && err != io.EOF {
		*r.err = err
	}
	return n, err
}

func (op *fileOp) hardLink(target string, dir int, base string) error {
	from, err := op.inside(target)
	if err != nil {
		return err
	}
	d, old, err := parent(from)
	if err != nil {
		return err
	}
	defer d.Close()
	var a, b unix.Stat_t
	if unix.Fstatat(int(d.Fd()), old, &a, unix.AT_SYMLINK_NOFOLLOW) == nil && unix.Fstatat(dir, base, &b, unix.AT_SYMLINK_NOFOLLOW) == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil // they are one already, or even one name
	}
	if err := unix.Unlinkat(dir, base, 0); err != nil && err != unix.ENOENT {
		return err
	}
	return unix.Linkat(int(d.Fd()), old, dir, base, 0)
}

func (op *fileOp) chmod(name string, mode uint32) error {
	d, err := open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Chmod(fs.FileMode(mode)); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: another's folder, that was there
		return err
	}
	return nil
}
