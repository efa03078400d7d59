package host

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// mounter runs mount calls on one thread that has a working directory of its own, so that an overlay's layers can be
// named by short relative paths: its options are shown inside the machine (mountinfo) and must not tell host paths.
type mounter struct{ work chan func() }

func newMounter() *mounter {
	m := &mounter{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			panic("unshare(CLONE_FS): " + err.Error()) // needs no privilege; cannot fail but for memory
		}
		for f := range m.work {
			f()
		}
	}()
	return m
}

// in runs f with dir as working directory.
func (m *mounter) in(dir string, f func() error) error {
	done := make(chan error)
	m.work <- func() {
		if err := unix.Chdir(dir); err != nil {
			done <- err
			return
		}
		err := f()
		_ = unix.Chdir("/")
		done <- err
	}
	return <-done
}

// MountImage mounts an EROFS file read-only and gives a detached tree: from the file itself (a block device; from kernel 6.12 on one on a
// disk file system), else through a loop device.
func (k *Kernel) MountImage(file string) (*os.File, error) {
	if err := k.enter("mount image"); err != nil {
		return nil, err
	}
	f, err := FsMount("erofs", file, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, "ro")
	if err == nil {
		return f, nil
	}
	if isDevice(file) || err != unix.ENOTBLK && err != unix.EINVAL && err != unix.ENOENT {
		return nil, step("mount erofs", err)
	}
	loop, err := attachLoop(file, true)
	if err != nil {
		return nil, err
	}
	defer loop.Close()
	f, err = FsMount("erofs", loop.Name(), unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, "ro")
	return f, step("mount erofs on a loop device", err)
}

// MountScratch puts a file system in memory at a folder, with room for names and small files.
func (k *Kernel) MountScratch(dir string) error {
	if err := k.enter("mount scratch"); err != nil {
		return err
	}
	tree, err := FsMount("tmpfs", "", unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode=700")
	if err != nil {
		return step("mount scratch", err)
	}
	defer tree.Close()
	return step("mount scratch", AttachTree(tree, dir))
}

// MemoryTree gives a detached file system in memory.
func (k *Kernel) MemoryTree() (*os.File, error) {
	if err := k.enter("mount memory"); err != nil {
		return nil, err
	}
	f, err := FsMount("tmpfs", "", unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, "mode=755")
	return f, step("mount memory", err)
}

// MountExt4 mounts an ext4 block device, or an image file through an autoclearing loop device, and gives a detached tree.
func (k *Kernel) MountExt4(file string, options ...string) (*os.File, error) {
	if err := k.enter("mount ext4"); err != nil {
		return nil, err
	}
	if isDevice(file) {
		f, err := FsMount("ext4", file, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, options...)
		return f, step("mount ext4", err)
	}
	loop, err := attachLoop(file, false)
	if err != nil {
		return nil, err
	}
	defer loop.Close() // the mount holds it from now on
	f, err := FsMount("ext4", loop.Name(), unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, options...)
	return f, step("mount ext4", err)
}

// isDevice: a guest's disks are devices already.
func isDevice(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&os.ModeDevice != 0
}

// ShutdownExt4 makes the file system forget its dirty pages, so that a thrown-away disk is never written.
// Source: EXT4_IOC_SHUTDOWN in fs/ext4/ioctl.c; 2 is EXT4_GOING_FLAGS_NOLOGFLUSH.
func (k *Kernel) ShutdownExt4(root *os.File) error {
	const ext4IOCShutdown = 0x8004587d
	return step("shut ext4 down", unix.IoctlSetPointerInt(int(root.Fd()), ext4IOCShutdown, 2))
}

// CloneIDMapped gives a detached copy of a mount whose ids are mapped as in the user namespace. Source: mount_setattr(2).
func (k *Kernel) CloneIDMapped(tree, userns *os.File) (*os.File, error) {
	if err := k.enter("id-map a layer"); err != nil {
		return nil, err
	}
	fd, err := unix.OpenTree(int(tree.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, step("open_tree", err)
	}
	clone := os.NewFile(uintptr(fd), "id-mapped layer")
	if err := idMap(clone, userns); err != nil {
		clone.Close()
		return nil, err
	}
	return clone, nil
}

// IDMap maps the ids of a mount that nobody has seen yet. It needs no copy, which before Linux 6.15 only an attached mount has.
func (k *Kernel) IDMap(tree, userns *os.File) error {
	if err := k.enter("id-map a disk"); err != nil {
		return err
	}
	return idMap(tree, userns)
}

func idMap(tree, userns *os.File) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	return step("mount_setattr idmap", unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &attr))
}

// CloneReadOnly gives a detached, read-only copy of the mount at a path, and whether it is a file. Only what lies on that
// one mount comes along.
func (k *Kernel) CloneReadOnly(path string) (file bool, tree *os.File, err error) {
	if err := k.enter("clone a mount"); err != nil {
		return false, nil, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return false, nil, step("open_tree", err)
	}
	tree = os.NewFile(uintptr(fd), "read-only tree")
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		tree.Close()
		return false, nil, step("mount_setattr", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		tree.Close()
		return false, nil, err
	}
	return st.Mode&unix.S_IFMT != unix.S_IFDIR, tree, nil
}

// DeviceNode gives a detached tree that is a device node of the same numbers as the one at path, and that everyone may
// read and write: the host's own is root's, whom no machine has. scratch is an empty folder of ours, used on the way:
// before Linux 6.15 only a tree that is attached can be cloned.
func (k *Kernel) DeviceNode(path, scratch string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, step("stat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR && st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, fmt.Errorf("%s is no device", path)
	}
	folder, err := FsMount("tmpfs", "", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "size=4k", "mode=755")
	if err != nil {
		return nil, step("mount a folder for a device", err)
	}
	defer folder.Close()
	if err := k.Attach(folder, scratch); err != nil {
		return nil, err
	}
	defer k.Undo(func() { _ = k.Detach(scratch) })
	at := int(folder.Fd())
	if err := unix.Mknodat(at, "node", st.Mode&unix.S_IFMT|0o666, int(st.Rdev)); err != nil {
		return nil, step("mknod", err)
	}
	if err := unix.Fchmodat(at, "node", 0o666, 0); err != nil { // mknod heeds the umask
		return nil, step("chmod", err)
	}
	fd, err := unix.OpenTree(at, "node", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	return os.NewFile(uintptr(fd), "device node"), step("open_tree", err)
}

// Attach puts a detached tree at a path of the daemon's own mount namespace.
func (k *Kernel) Attach(tree *os.File, path string) error {
	if err := k.enter("attach"); err != nil {
		return err
	}
	if err := CheckPrivateMounts(); err != nil {
		return err
	}
	return step("move_mount", AttachTree(tree, path))
}

// AttachTree puts a detached tree at a path no part of which may be a symbolic link, so that what a program left there
// can't lead the mount elsewhere.
func AttachTree(tree *os.File, path string) error {
	at, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return unix.MoveMount(int(tree.Fd()), "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// Detach takes a tree off a path; what still uses it goes on.
func (k *Kernel) Detach(path string) error {
	if err := k.enter("detach"); err != nil {
		return err
	}
	return step("umount", unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}

// Overlay mounts an overlay of layers (lowest first), upper and work, all paths relative to dir, and gives a detached tree.
func (k *Kernel) Overlay(dir string, lowers []string, upper, work string, options ...string) (*os.File, error) {
	if err := k.enter("mount overlay"); err != nil {
		return nil, err
	}
	top := make([]string, 0, len(lowers)) // overlayfs wants the highest first
	for i := len(lowers) - 1; i >= 0; i-- {
		top = append(top, lowers[i])
	}
	var f *os.File
	err := k.mounts.in(dir, func() (err error) {
		opts := append([]string{"lowerdir=" + strings.Join(top, ":"), "upperdir=" + upper, "workdir=" + work}, options...)
		f, err = FsMount("overlay", "overlay", unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, opts...)
		return err
	})
	return f, step("mount overlay", err)
}

// OverlayOf mounts an overlay of layers (lowest first) that are attached nowhere, and gives a detached tree; upper and work are folders
// of one mount. See CanOverlayDetached.
func (k *Kernel) OverlayOf(lowers []*os.File, upper, work *os.File, options ...string) (*os.File, error) {
	if err := k.enter("mount overlay"); err != nil {
		return nil, err
	}
	var parts []part
	for i := len(lowers) - 1; i >= 0; i-- { // overlayfs wants the highest first
		parts = append(parts, part{"lowerdir+", lowers[i]})
	}
	parts = append(parts, part{"upperdir", upper}, part{"workdir", work})
	f, err := fsMount("overlay", "overlay", unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, parts, options)
	return f, step("mount overlay", err)
}

// CanOverlayDetached says whether the kernel makes overlays of trees that are attached nowhere: from 6.15 on. Every attached tree must be
// taken off again, for which the kernel waits until all processors have taken note. Source: clone_private_mount and namespace_unlock in
// fs/namespace.c.
func CanOverlayDetached() bool {
	scratch, err := FsMount("tmpfs", "", unix.MOUNT_ATTR_NODEV, "size=64k", "mode=700")
	if err != nil {
		return false
	}
	defer scratch.Close()
	var folders []*os.File
	for _, name := range []string{"lower", "upper", "work"} {
		if err := unix.Mkdirat(int(scratch.Fd()), name, 0o700); err != nil {
			return false
		}
		f, err := OpenFolder(scratch, name)
		if err != nil {
			return false
		}
		defer f.Close()
		folders = append(folders, f)
	}
	f, err := New().OverlayOf(folders[:1], folders[1], folders[2])
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// OpenFolder opens a folder of a tree, which may be detached.
func OpenFolder(tree *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(tree.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, step("open "+name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// FsMount makes a file system and a detached mount of it. Source: fsopen(2), fsconfig(2), fsmount(2).
func FsMount(fstype, source string, attr int, options ...string) (*os.File, error) {
	return fsMount(fstype, source, attr, nil, options)
}

// part is an option whose value is a file.
type part struct {
	key  string
	file *os.File
}

func fsMount(fstype, source string, attr int, parts []part, options []string) (*os.File, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return nil, err
		}
	}
	for _, p := range parts {
		if err := unix.FsconfigSetFd(fs, p.key, int(p.file.Fd())); err != nil {
			return nil, fmt.Errorf("option %s: %w", p.key, err)
		}
	}
	for _, o := range options {
		key, value, isString := strings.Cut(o, "=")
		if isString {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), fstype), nil
}

// privateMountsMark is set in the environment of a process that was given a mount namespace of its own: the inode of
// the one it came from, so that a stale mark can't pass for the real thing.
const privateMountsMark = "OUTPOST_PRIVATE_MOUNTS"

// EnterPrivateMounts gives the process a mount namespace of its own with private propagation: it starts the program anew
// inside (the pid stays) and returns there. What the daemon mounts dies with it and never shows on the host.
// It must run before anything else in main.
func EnterPrivateMounts() error {
	now, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return step("read the mount namespace", err)
	}
	if from := os.Getenv(privateMountsMark); from != "" && from != now {
		_ = os.Unsetenv(privateMountsMark)
		if err := step("make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			return err
		}
		ownMounts = now
		return nil
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return step("unshare the mount namespace (root is needed)", err)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return step("start anew", unix.Exec(exe, os.Args, append(os.Environ(), privateMountsMark+"="+now)))
}

var ownMounts string

// OwnMounts says that the mount namespace is this process's: that of a guest's first one is nobody else's.
func OwnMounts() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("process %d is not the first of a guest", os.Getpid())
	}
	now, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return step("read the mount namespace", err)
	}
	ownMounts = now
	return step("make mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

// CheckPrivateMounts fails unless EnterPrivateMounts succeeded in this process: whoever mounts asks it first.
func CheckPrivateMounts() error {
	now, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || ownMounts == "" || now != ownMounts {
		return fmt.Errorf("not in a mount namespace of our own (%s): refusing to mount", filepath.Base(now))
	}
	return nil
}
