package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// fileOp is one call on files.
type fileOp struct {
	agent.FileOp
	who  user
	conn net.Conn
	name string    // absolute
	body io.Reader // of what is put or unpacked
	out  agent.FileFrames
}

// files does what a client asks of files, with the rights of a user.
func (a *Agent) files(conn net.Conn, b []byte) error {
	op := fileOp{conn: conn, body: agent.TakeUpload(conn), out: agent.FileFrames{W: conn}}
	if err := json.Unmarshal(b, &op.FileOp); err != nil {
		return err
	}
	var err error
	if op.who, err = lookUser(op.User); err != nil {
		return err
	}
	op.name = absolute(op.Path, op.Dir)
	do := map[sandbox.FileVerb]func() error{
		sandbox.GetFile: op.get, sandbox.PutFile: op.put, sandbox.ListFolder: op.list, sandbox.MakeFolder: op.mkdir,
		sandbox.RemoveFile: op.remove, sandbox.PackFolder: op.pack, sandbox.Unpack: op.unpack,
	}[op.Verb]
	if do == nil {
		return fmt.Errorf("%w: %q of files", agent.ErrFrame, op.Verb)
	}
	if err := as(op.who, do); err != nil {
		return op.refusal(err)
	}
	return agent.WriteFrame(conn, agent.KindComplete, nil)
}

// refusal is an error of the file system in the contract's terms.
func (op *fileOp) refusal(err error) error {
	if _, is := errors.AsType[*refusal](err); is {
		return err
	}
	var errno unix.Errno
	if errors.Is(err, errNotRegular) {
		return refuse(sandbox.FilePermissionDenied, "path", "%s is no regular file", op.Path)
	}
	if !errors.As(err, &errno) {
		return err
	}
	code := sandbox.Conflict
	switch errno {
	case unix.ENOENT:
		code = sandbox.FileNotFound
	case unix.EACCES, unix.EPERM, unix.EROFS, unix.ELOOP, unix.ENXIO, unix.ENODEV:
		code = sandbox.FilePermissionDenied
	case unix.EISDIR:
		code = sandbox.IsADirectory
	case unix.ENOTDIR:
		code = sandbox.NotADirectory
	case unix.ENOSPC, unix.EDQUOT:
		return refuse(sandbox.DiskFull, "", "%s does not fit on the sandbox's disk: raise resource_limits.disk_mb", op.Path)
	case unix.EFBIG:
		code = sandbox.FileTooLarge
	case unix.ENAMETOOLONG, unix.EINVAL:
		code = sandbox.Invalid
	case unix.EIO:
		return err
	}
	return refuse(code, "path", "%s: %s", op.Path, errno.Error())
}

func (op *fileOp) get() error {
	f, err := open(op.name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case st.IsDir():
		return unix.EISDIR
	case !st.Mode().IsRegular():
		return errNotRegular
	}
	if err := op.out.Found(infoOf(op.name, st)); err != nil {
		return err
	}
	if _, err := f.Seek(op.Offset, io.SeekStart); err != nil {
		return err
	}
	length := max(0, st.Size()-op.Offset) // as was announced: it may grow meanwhile
	if op.Length > 0 {
		length = min(length, op.Length)
	}
	_, err = io.CopyBuffer(onlyWriter{op.out}, onlyReader{io.LimitReader(f, length)}, make([]byte, agent.MaxData))
	return err
}

// onlyReader and onlyWriter hide shorter ways to copy, which would take other buffers.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

func infoOf(name string, st fs.FileInfo) sandbox.FileInfo {
	info := sandbox.FileInfo{
		Name: path.Base(name), Path: name, Type: sandbox.OtherFile, Size: st.Size(),
		Mode: fmt.Sprintf("%04o", permissions(st.Mode())), ModifiedAt: sandbox.At(st.ModTime()),
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		info.Type = sandbox.RegularFile
	case mode.IsDir():
		info.Type = sandbox.Directory
	case mode&fs.ModeSymlink != 0:
		info.Type = sandbox.SymbolicLink
	}
	return info
}

// permissions are the twelve bits as chmod(2) takes them.
func permissions(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

func (op *fileOp) list() error {
	d, err := open(op.name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	for n := 0; ; {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if n++; n > agent.MaxEntries {
				return refuse(sandbox.FileTooLarge, "path", "%s has over %d entries: list a part of it, or take its archive", op.Path, agent.MaxEntries)
			}
			st, err := statAt(d, name)
			if err != nil { // it is gone
				continue
			}
			if err := op.out.Found(infoOf(path.Join(op.name, name), st)); err != nil {
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

// statAt is an entry of a folder, itself where it is a link.
func statAt(d *os.File, name string) (fs.FileInfo, error) {
	fd, err := unix.Openat(int(d.Fd()), name, openPath|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Stat()
}

func (op *fileOp) mkdir() error {
	if err := makeParents(path.Join(op.name, "x")); err != nil {
		return err
	}
	d, err := open(op.name, openPath|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return d.Close()
}

// parent opens the folder that an entry is in, and gives its name there.
func parent(name string) (*os.File, string, error) {
	base := path.Base(name)
	if base == "/" || base == "." || base == ".." {
		return nil, "", unix.EBUSY
	}
	d, err := open(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return d, base, err
}

func (op *fileOp) remove() error {
	d, base, err := parent(op.name)
	if err != nil {
		return err
	}
	defer d.Close()
	left := entries(maxRemoved)
	go func() { // nothing more is sent: its end is the client's, who is not waited for
		_, _ = op.conn.Read(make([]byte, 1))
		left.Store(0)
	}()
	err = removeAll(int(d.Fd()), base, left, maxDepth)
	if err == errTooMuch {
		return refuse(sandbox.Conflict, "path", "%s had over %d entries, or got ever new ones: delete it again, or end what writes there first", op.Path, maxRemoved)
	}
	return err
}

// maxRemoved bounds what one call removes: programs may add entries as fast as they are removed.
const maxRemoved = 4 << 20

// maxDepth bounds how many folders within folders are opened at once: each takes a descriptor.
const maxDepth = 256

var errTooDeep = unix.ENAMETOOLONG

// put writes a file so that it is there whole or not at all, where that can be had: over a link, or a file that others
// know by another name or own, it writes in place.
func (op *fileOp) put() error {
	mode := op.Mode & 0o777
	old, err := open(op.name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == nil {
		defer old.Close()
		st, err := old.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return errNotRegular
		}
		if mode == 0 {
			mode = permissions(st.Mode()) & 0o777
		}
		if !op.replaceable(old) {
			return op.overwrite(old)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeParents(op.name); err != nil {
		return err
	}
	d, base, err := parent(op.name)
	if err != nil {
		return err
	}
	defer d.Close()
	if mode == 0 {
		mode = 0o644
	}
	if err := op.onDisk(d); err != nil {
		return err
	}
	err = writeWhole(d, base, mode, op.body)
	if old != nil && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS)) { // the file may be written, its folder not
		return op.overwrite(old)
	}
	return err
}

// onDisk refuses a place in memory: what an agent writes there counts as the agent's, which is killed where it has too much.
func (op *fileOp) onDisk(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type == unix.TMPFS_MAGIC {
		return refuse(sandbox.FilePermissionDenied, "path", "%s is in memory, where only programs write: put it on the disk, and let a program move it", op.Path)
	}
	return nil
}

// replaceable says whether a file can be another one of the same name afterwards: who opened it before keeps the old.
func (op *fileOp) replaceable(f *os.File) bool {
	d, base, err := parent(op.name)
	if err != nil {
		return false
	}
	defer d.Close()
	var opened, named unix.Stat_t
	if unix.Fstat(int(f.Fd()), &opened) != nil || unix.Fstatat(int(d.Fd()), base, &named, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return false
	}
	return opened.Dev == named.Dev && opened.Ino == named.Ino && opened.Nlink == 1 && int(opened.Uid) == op.who.uid
}

func (op *fileOp) overwrite(f *os.File) error {
	if err := op.onDisk(f); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := io.CopyBuffer(onlyWriter{f}, onlyReader{op.body}, make([]byte, agent.MaxData))
	return err
}

// writeWhole writes a file under another name first. The body is read on the calling thread, whose file rights count.
func writeWhole(d *os.File, base string, mode uint32, body io.Reader) error {
	draft := ".outpost-" + sandbox.NewID("")
	fd, err := unix.Openat(int(d.Fd()), draft, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), draft)
	_, err = io.CopyBuffer(onlyWriter{f}, onlyReader{body}, make([]byte, agent.MaxData))
	if err == nil {
		err = f.Chmod(fs.FileMode(mode))
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = unix.Renameat(int(d.Fd()), draft, int(d.Fd()), base)
	}
	if err != nil {
		_ = unix.Unlinkat(int(d.Fd()), draft, 0)
	}
	return err
}
