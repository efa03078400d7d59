// Package cache has what tests of other kernels and of monitors download: kernels, QEMU, Firecracker. It may be removed at any time.
package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"outpost.run/outpost/internal/guestos"
)

// suiteOf says which Debian suite carries a kernel version as linux-image-cloud-amd64.
var suiteOf = map[string]string{"6.1": "bookworm", "6.12": "trixie"}

// qemuSuite is where QEMU comes from, whatever the host is: one version everywhere.
const qemuSuite = "trixie"

// Cache is the folder with what was downloaded: kernels/VERSION, qemu and firecracker.
type Cache struct {
	Dir string
	log io.Writer
}

// Open finds the folder: OUTPOST_TEST_CACHE, else one below the user's cache.
func Open(log io.Writer) (*Cache, error) {
	dir := os.Getenv("OUTPOST_TEST_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no cache folder (%w): set OUTPOST_TEST_CACHE", err)
		}
		dir = filepath.Join(base, "outpost-test")
	}
	return &Cache{Dir: dir, log: log}, os.MkdirAll(dir, 0o755)
}

// make fills dir/name by fill, unless it is there; what an interruption leaves is never taken for whole.
func (c *Cache) make(name string, fill func(tmp string) error) (string, error) {
	final := filepath.Join(c.Dir, name)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	tmp, err := os.MkdirTemp(c.Dir, "part-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "whole")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", err
	}
	if err := fill(root); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", err
	}
	return final, os.Rename(root, final)
}

// Kernel is an unpacked linux-image package.
type Kernel struct {
	Image   string // the bzImage
	Release string // 6.12.107+deb13-cloud-amd64
	Modules string // lib/modules/RELEASE
}

// Closure gives the wanted modules and what they need.
func (k *Kernel) Closure(wanted []string) ([]guestos.Module, error) {
	s, err := guestos.Folder(k.Modules, k.Release)
	if err != nil {
		return nil, err
	}
	return s.Closure(wanted)
}

// Kernel unpacks the cloud kernel of a version, 6.1 or 6.12.
func (c *Cache) Kernel(ctx context.Context, version string) (*Kernel, error) {
	name, ok := suiteOf[version]
	if !ok {
		return nil, fmt.Errorf("no kernel %q: known are 6.1 and 6.12", version)
	}
	root, err := c.make(filepath.Join("kernels", version), func(tmp string) error {
		return c.fromSuite(ctx, name, tmp, func(s *suite) error {
			pkg, err := s.dependency(ctx, "linux-image-cloud-amd64", "linux-image-")
			if err != nil {
				return err
			}
			return s.unpack(ctx, tmp, pkg, false)
		})
	})
	if err != nil {
		return nil, err
	}
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%s holds %d kernels, want one (%v): remove the folder and try again", root, len(images), err)
	}
	k := &Kernel{Image: images[0], Release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")}
	for _, lib := range []string{"lib", "usr/lib"} { // trixie's packages have the merged /usr
		if dir := filepath.Join(root, lib, "modules", k.Release); exists(dir) {
			k.Modules = dir
		}
	}
	if k.Modules == "" {
		return nil, fmt.Errorf("%s has no modules of %s: remove the folder and try again", root, k.Release)
	}
	return k, nil
}

// QEMU is the command that starts the cached QEMU with its own loader and libraries.
func (c *Cache) QEMU(ctx context.Context) ([]string, error) {
	root, err := c.make("qemu", func(tmp string) error {
		return c.fromSuite(ctx, qemuSuite, tmp, func(s *suite) error { return s.unpack(ctx, tmp, "qemu-system-x86", true) })
	})
	if err != nil {
		return nil, err
	}
	libs := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	paths := strings.Join([]string{libs, filepath.Join(libs, "pulseaudio")}, ":")
	return []string{
		filepath.Join(libs, "ld-linux-x86-64.so.2"), "--library-path", paths,
		filepath.Join(root, "usr/bin/qemu-system-x86_64"),
		"-L", filepath.Join(root, "usr/share/qemu"), "-L", filepath.Join(root, "usr/share/seabios"),
	}, nil
}

func (c *Cache) fromSuite(ctx context.Context, name, tmp string, use func(*suite) error) error {
	dir := tmp + ".apt"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	s, err := openSuite(ctx, name, dir, c.log)
	if err != nil {
		return err
	}
	return use(s)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
