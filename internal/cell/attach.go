package cell

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// Attach puts a detached tree at a path of the programs' root, where those that run already see it. A link at the end of
// the path is not followed; one before it leads no further than the programs' own root.
func (c *Cell) Attach(tree *os.File, path string) error {
	const fromFd = unix.MOVE_MOUNT_F_EMPTY_PATH
	at := unix.AT_FDCWD
	return c.inside(path, func(s *host.Script) {
		s.Must("move_mount", unix.SYS_MOVE_MOUNT, tree.Fd(), s.String(""), uintptr(at), s.String(path), fromFd)
	})
}

// Detach takes the tree at a path away; what still uses it goes on.
func (c *Cell) Detach(path string) error {
	return c.inside(path, func(s *host.Script) {
		s.Must("umount", unix.SYS_UMOUNT2, s.String(path), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	})
}

// inside runs a call in the programs' namespaces.
func (c *Cell) inside(path string, call func(*host.Script)) error {
	s, err := host.NewScript(len(path) + 1<<10)
	if err != nil {
		return err
	}
	defer s.Close()
	s.Must("enter the user namespace", unix.SYS_SETNS, c.userns.Fd(), unix.CLONE_NEWUSER)
	s.Must("enter the mount namespace", unix.SYS_SETNS, c.mntns.Fd(), unix.CLONE_NEWNS)
	call(s)
	s.Exit(0)
	pid, err := s.Fork(0)
	if err != nil {
		return err
	}
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	if err := s.Failed(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
