package guest

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/cell"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

// mount attaches a tree to the root of a living machine.
func (a *Agent) mount(conn net.Conn, b []byte, files []*os.File) error {
	defer closeAll(files)
	var m agent.Mount
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	a.mu.Lock()
	c := a.cell
	a.mu.Unlock()
	if c == nil || len(files) != 1 {
		return errors.New("a mount before setup, or without its tree")
	}
	if err := makePoint(m); err != nil {
		return err
	}
	if err := c.Attach(files[0], m.Path); err != nil {
		return refuse(sandbox.Invalid, "", "%s can't be mounted on: something there is in the way", m.Path)
	}
	return agent.WriteJSON(conn, agent.KindOK, agent.Place{})
}

// unmount takes away what mount attached.
func (a *Agent) unmount(conn net.Conn, b []byte) error {
	var m agent.Mount
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	a.mu.Lock()
	c := a.cell
	a.mu.Unlock()
	if c == nil {
		return errors.New("an unmount before setup")
	}
	if err := c.Detach(m.Path); err != nil {
		return err
	}
	return agent.WriteJSON(conn, agent.KindOK, agent.Place{})
}

// attach puts the trees of a machine's setup at their places; those below /dev are there already.
func attach(mounts []agent.Mount, trees []*os.File, who user) error {
	next := 0
	for _, m := range mounts {
		if m.Link != "" {
			if err := makeLink(m); err != nil {
				return err
			}
			continue
		}
		tree := trees[next]
		next++
		if cell.IsDevice(m.Path) {
			continue
		}
		if err := makePoint(m); err != nil {
			return err
		}
		if err := host.AttachTree(tree, cell.RootDir+m.Path); err != nil {
			return refuse(sandbox.Invalid, fieldOf(m), "%s can't be mounted on: a link or a file of the image is in the way", m.Path)
		}
		if m.Own {
			if err := handOverDisk(m.Path, who); err != nil {
				return err
			}
		}
	}
	return nil
}

// fieldOf is the request's field that a mount comes from.
func fieldOf(m agent.Mount) string {
	if m.Own {
		return "disk_mount_path"
	}
	return ""
}

// makePoint makes what a mount needs to lie on.
func makePoint(m agent.Mount) error {
	if !m.File {
		return makeDir(fieldOf(m), m.Path, user{})
	}
	return inFolder(m.Path, func(folder int, name string) error {
		fd, err := unix.Openat(folder, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
}

func makeLink(m agent.Mount) error {
	return inFolder(m.Path, func(folder int, name string) error { return unix.Symlinkat(m.Link, folder, name) })
}

// inFolder makes something in a folder, which is made where it is missing. What is there already stays.
func inFolder(at string, do func(folder int, name string) error) error {
	if err := makeDir("", path.Dir(at), user{}); err != nil {
		return err
	}
	return as(user{}, func() error {
		f, err := open(path.Dir(at), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := do(int(f.Fd()), path.Base(at)); err != nil && err != unix.EEXIST {
			return refuse(sandbox.Invalid, "", "%s can't be made: %s", at, reason(err))
		}
		return nil
	})
}

// handOverDisk gives the user the root of a disk that holds nothing yet.
func handOverDisk(dir string, who user) error {
	return as(user{}, func() error {
		d, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer d.Close()
		names, err := d.Readdirnames(3)
		for _, name := range names {
			if name != "lost+found" { // mkfs made it
				return nil
			}
		}
		if len(names) == 0 && err == nil {
			return nil
		}
		return d.Chown(who.uid, who.gid)
	})
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// devicesOf are the trees that belong below /dev, by their name there.
func devicesOf(mounts []agent.Mount, trees []*os.File) map[string]*os.File {
	all := map[string]*os.File{}
	next := 0
	for _, m := range mounts {
		if m.Link != "" {
			continue
		}
		if cell.IsDevice(m.Path) {
			all[strings.TrimPrefix(m.Path, "/dev/")] = trees[next]
		}
		next++
	}
	return all
}

// treesOf is how many descriptors come with the mounts.
func treesOf(mounts []agent.Mount) (n int) {
	for _, m := range mounts {
		if m.Link == "" {
			n++
		}
	}
	return n
}
