package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"outpost.run/outpost/internal/guestos"
	"outpost.run/outpost/test/kernels/plan"
)

// defaultModules are what an engine needs of a cloud kernel beyond what is built in.
var defaultModules = []string{"virtio_pci", "virtio_blk", "loop", "erofs", "overlay", "tun", "veth", "nf_tables"}

// testDir is the guest's folder for the tests' data, on its ext4 disk; TMPDIR points below it.
const testDir = "/var/test"

// diskSize is the guest's root disk; sparse on the host.
const diskSize = "6G"

// writeInitramfs packs the init and the modules.
func writeInitramfs(path, init string, mods []guestos.Module) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	program, err := os.ReadFile(init)
	if err != nil {
		return err
	}
	return guestos.WriteInitramfs(f, program, mods, "disk")
}

// file is something of the host that the guest gets: a file or a folder.
type file struct{ from, to string }

// makeDisk writes the guest's root file system as an ext4 image.
func makeDisk(ctx context.Context, dir string, p plan.Plan, files []file, tools []string) (string, error) {
	root := filepath.Join(dir, "root")
	for _, d := range []string{"dev", "proc", "sys", "tmp", "run", "etc", "root", "var/tmp", testDir, testDir + "/tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	for name, content := range map[string]string{
		plan.File:     string(text),
		"/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"/etc/group":  "root:x:0:\nnogroup:x:65534:\n",
		"/etc/hosts":  "127.0.0.1 localhost\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	for _, t := range tools {
		more, err := withLibraries(ctx, t)
		if err != nil {
			return "", err
		}
		files = append(files, more...)
	}
	for _, f := range files {
		if err := copyIn(root, f); err != nil {
			return "", fmt.Errorf("copy %s into the guest: %w", f.from, err)
		}
	}
	image := filepath.Join(dir, "disk.ext4")
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-d", root, image, diskSize).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return image, nil
}

// library is a path in what ldd prints: "libc.so.6 => /lib/…/libc.so.6 (0x…)" or "/lib64/ld-linux… (0x…)".
var library = regexp.MustCompile(`(/\S+) \(0x`)

// withLibraries gives a program of the host and the shared libraries it needs, each at its own path.
func withLibraries(ctx context.Context, tool string) ([]file, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return nil, fmt.Errorf("the guest needs %s: %w", tool, err)
	}
	files := []file{{path, path}}
	out, err := exec.CommandContext(ctx, "ldd", path).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("not a dynamic executable")) {
		return nil, fmt.Errorf("ldd %s: %w: %s", path, err, out)
	}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		files = append(files, file{m[1], m[1]})
	}
	return files, nil
}

func copyIn(root string, f file) error {
	from, err := filepath.EvalSymlinks(f.from)
	if err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(root, f.to, strings.TrimPrefix(path, from))
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case info.Mode().IsRegular():
			return copyFile(path, to, info.Mode().Perm())
		}
		return fmt.Errorf("%s is neither a file nor a folder", path)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}
