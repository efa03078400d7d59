package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"outpost.run/outpost/internal/bench"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image"
)

// bareCommand is the bare side of `bench`, a process of its own: it mounts images where nobody else sees them, and
// starts programs below them without any isolation.
func bareCommand() *cobra.Command {
	var dataDir, dir string
	cmd := &cobra.Command{
		Use: "bench-bare", Hidden: true, Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := host.EnterPrivateMounts(); err != nil {
				return err
			}
			images, err := image.Open(imagesDir(dataDir))
			if err != nil {
				return err
			}
			defer images.Close()
			roots, err := bench.NewRoots(images, dir)
			if err != nil {
				return err
			}
			return bench.ServeBare(cmd.Context(), roots, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "")
	cmd.Flags().StringVar(&dir, "dir", "", "")
	return cmd
}

// bareSide is the command for the images of a data directory, and the empty folder that it mounts on.
type bareSide struct{ dir string }

func newBareSide() (*bareSide, error) {
	dir, err := os.MkdirTemp("", "outpost-bare-")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // mounts follow no links
		return nil, err
	}
	return &bareSide{dir}, nil
}

func (b *bareSide) command(dataDir string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "bench-bare", "--dir", b.dir, "--data-dir", dataDir)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// close removes the folder: what was mounted there was never seen here.
func (b *bareSide) close() error {
	if err := os.Remove(b.dir); err != nil {
		return fmt.Errorf("left behind: %w", err)
	}
	return nil
}
