//go:build kernellane

// Package guest tests the kernel lane itself: what its guest promises to the tests that run there.
package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCgroup2HasTheControllers(t *testing.T) {
	text, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(strings.Fields(string(text)), want) {
			t.Errorf("controller %s is missing of %s", want, text)
		}
	}
}

func TestFileSystemsOfTheEngine(t *testing.T) {
	text, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"erofs", "ext4", "overlay", "tmpfs"} {
		if !slices.Contains(strings.Fields(string(text)), want) {
			t.Errorf("file system %s is missing", want)
		}
	}
}

func TestTempDirIsOnExt4(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &st); err != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		t.Errorf("TMPDIR is on %#x (%v), want ext4", st.Type, err)
	}
}

func TestMkfsWorks(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("mkfs.ext4", "-q", image, "16M").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

// TestMain is the child of TestRootCanBePivoted where PIVOT_CHILD names the root it shall take.
func TestMain(m *testing.M) {
	if root := os.Getenv("PIVOT_CHILD"); root != "" {
		if err := pivot(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// pivot_root refuses to work while the root is the initramfs.
func TestRootCanBePivoted(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "PIVOT_CHILD="+t.TempDir())
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func pivot(root string) error {
	if err := unix.Mount("guest", root, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return nil
}
