package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image"
)

// bareCommand measures the bare interpreter for `bench`, in a process of its own: it mounts the image's layers where
// nobody else sees them, and starts the interpreter below them without any isolation.
func bareCommand() *cobra.Command {
	var dataDir, dir string
	var runs int
	var every time.Duration
	cmd := &cobra.Command{
		Use: "bench-bare IMAGE", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := host.EnterPrivateMounts(); err != nil {
				return err
			}
			root, err := mountBare(dataDir, args[0], dir)
			if err != nil {
				return err
			}
			b := bench{runs: runs}
			m, err := b.measure(cmd.Context(), "bare interpreter", pace{Every: every}, func() error { return bareOnce(root) }, nil)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(m)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "")
	cmd.Flags().StringVar(&dir, "dir", "", "")
	cmd.Flags().IntVar(&runs, "runs", 1, "")
	cmd.Flags().DurationVar(&every, "every", 0, "")
	return cmd
}

// mountBare mounts the image below dir, read-only; the mounts end with the process.
func mountBare(dataDir, ref, dir string) (root string, err error) {
	store, err := image.Open(imagesDir(dataDir))
	if err != nil {
		return "", err
	}
	defer store.Close()
	img, ok := store.Get(ref)
	if !ok {
		return "", fmt.Errorf("image %s is not in %s", ref, imagesDir(dataDir))
	}
	if err := host.CheckPrivateMounts(); err != nil {
		return "", err
	}
	if err := unix.Mount("outpost-bare", dir, "tmpfs", 0, ""); err != nil { // so that nothing stays in dir
		return "", fmt.Errorf("mount a tmpfs: %w", err)
	}
	kernel := host.New()
	var lowers []string
	attach := func(name string, tree *os.File) (string, error) {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			return "", err
		}
		return at, kernel.Attach(tree, at)
	}
	for i, layer := range img.Layers {
		tree, err := kernel.MountImage(layer)
		if err != nil {
			return "", err
		}
		at, err := attach(fmt.Sprint(i), tree)
		if err != nil {
			return "", err
		}
		lowers = append(lowers, at)
	}
	if len(lowers) == 1 {
		return lowers[0], nil
	}
	slices.Reverse(lowers) // overlayfs wants the highest first
	tree, err := host.FsMount("overlay", "outpost-bare", unix.MOUNT_ATTR_RDONLY, "lowerdir="+strings.Join(lowers, ":"))
	if err != nil {
		return "", fmt.Errorf("mount the overlay: %w", err)
	}
	return attach("root", tree)
}

func bareOnce(root string) error {
	cmd := exec.Command("/usr/bin/python3", "-c", benchProgram)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "1\n" {
		return fmt.Errorf("bare %q: %v: %s", benchProgram, err, out)
	}
	return nil
}

// bare measures the bare interpreter at one pace.
func (b bench) bare(ctx context.Context, dataDir, ref string, p pace) (m measure, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	dir, err := os.MkdirTemp("", "outpost-bare-")
	if err != nil {
		return m, err
	}
	defer os.Remove(dir) //nolint:errcheck // empty: what the child mounts on it ends with the child
	cmd := exec.CommandContext(ctx, self, "bench-bare", "--dir", dir, "--data-dir", dataDir, "--runs", fmt.Sprint(b.runs), "--every", p.Every.String(), ref)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		return m, fmt.Errorf("the bare interpreter can't be measured: %s", strings.TrimPrefix(strings.TrimSpace(log.String()), "outpost: "))
	}
	err = json.Unmarshal(out, &m)
	m.Pace = p.Name
	return m, err
}
