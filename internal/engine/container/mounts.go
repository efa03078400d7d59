package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/network/inside"
	"outpost.run/outpost/sandbox"
)

// Attach implements engine.Machine.
func (m *machine) Attach(ctx context.Context, x engine.Mount) error {
	if x.Kind == engine.DiskMount || x.Kind == engine.LinkMount {
		return fmt.Errorf("%s %s: it is a machine's from its start or not at all", x.Kind, x.Path)
	}
	trees, points, err := m.trees(ctx, []engine.Mount{x})
	defer closeAll(trees)
	if err != nil {
		return internal(err, "the mount could not be made")
	}
	conn, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return conn.Mount(points[0], trees[0])
}

// Detach implements engine.Machine.
func (m *machine) Detach(ctx context.Context, path string) error {
	conn, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return conn.Unmount(path)
}

// Network implements engine.Machine.
func (m *machine) Network() (engine.Network, error) {
	ns, err := m.namespace("net")
	if err != nil {
		return nil, sandbox.Errorf(sandbox.Lost, err, "the machine was lost")
	}
	if !m.process.Alive() { // else its pid was its own when it was looked up, and not another process's
		ns.Close()
		return nil, sandbox.Errorf(sandbox.Lost, nil, "the machine was lost")
	}
	return inside.New(m.e.kernel, &m.e.sockets, ns), nil
}

func (m *machine) namespace(kind string) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/%s", m.process.Pid, kind))
}

// Ping implements engine.Machine.
func (m *machine) Ping(ctx context.Context) error {
	conn, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return conn.Ping()
}

// trees makes a detached tree of each mount, and says where the agent is to put it. What was made until an error is
// answered with it.
func (m *machine) trees(ctx context.Context, mounts []engine.Mount) (trees []*os.File, points []agent.Mount, err error) {
	if len(mounts) == 0 {
		return nil, nil, nil
	}
	userns, err := m.namespace("user")
	if err != nil {
		return nil, nil, err
	}
	defer userns.Close()
	for _, x := range mounts {
		point := agent.Mount{Path: x.Path}
		if x.Kind == engine.LinkMount {
			point.Link = x.Source
			points = append(points, point)
			continue
		}
		var tree *os.File
		switch x.Kind {
		case engine.LayerMount:
			tree, err = m.layerTree(x.Source, userns)
		case engine.DiskMount:
			point.Own = true
			tree, err = m.diskTree(ctx, x.Source, userns)
		case engine.DeviceMount:
			point.File = true
			tree, err = m.deviceTree(x.Source)
		case engine.HostMount:
			point.File, tree, err = m.e.kernel.CloneReadOnly(x.Source)
		default:
			err = fmt.Errorf("mount kind %q", x.Kind)
		}
		if err != nil {
			return trees, nil, fmt.Errorf("%s for %s: %w", x.Kind, x.Path, err)
		}
		trees, points = append(trees, tree), append(points, point)
	}
	return trees, points, nil
}

func (m *machine) layerTree(layer string, userns *os.File) (*os.File, error) {
	return m.e.images.clone(layer, userns)
}

func (m *machine) deviceTree(device string) (*os.File, error) {
	scratch := filepath.Join(m.e.mountDir(m.spec.ID), "dev")
	if err := os.Mkdir(scratch, 0o700); err != nil && !os.IsExist(err) {
		return nil, err
	}
	return m.e.kernel.DeviceNode(device, scratch)
}

// diskTree mounts an image that other machines had before. The last of them may be about to go: a file system must never
// be mounted twice.
func (m *machine) diskTree(ctx context.Context, image string, userns *os.File) (*os.File, error) {
	if err := free(ctx, image); err != nil {
		return nil, err
	}
	tree, err := m.e.kernel.MountExt4(image, "noinit_itable")
	if err != nil {
		return nil, err
	}
	if err := m.e.kernel.IDMap(tree, userns); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// free waits until nothing has the image mounted any more: what its last machine wrote is being written to the host's disk.
func free(ctx context.Context, image string) error {
	for {
		used, err := host.HasLoop(image)
		if err != nil || !used {
			return err
		}
		select {
		case <-ctx.Done():
			e := sandbox.Errorf(sandbox.Capacity, ctx.Err(), "what was written to the sandbox's disk is still on its way to the host's: try again")
			e.RetryAfterSecs = 5
			return e
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
