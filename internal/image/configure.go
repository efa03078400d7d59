package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// What packages' own scripts would have done when they were installed is made good here: unpacked packages have no
// users, no certificates bundle, no loader cache. Each effect has a test in build_test.go.

// runner runs a program of the image.
type runner func(ctx context.Context, argv ...string) error

// skeleton makes what must be there before any package is unpacked: the merged /usr and empty places.
func skeleton(root *os.Root) error {
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := errors.Join(makeDir(root, "usr/"+d, 0o755, 0, 0), makeSymlink(root, "usr/"+d, d)); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		name string
		mode fs.FileMode
		id   int
	}{
		{"dev", 0o755, 0}, {"dev/shm", 0o755, 0}, {"dev/pts", 0o755, 0}, {"proc", 0o755, 0}, {"sys", 0o755, 0}, {"run", 0o755, 0},
		{"run/lock", 0o755, 0}, {"tmp", 0o777 | fs.ModeSticky, 0}, {"var/tmp", 0o777 | fs.ModeSticky, 0},
		{"root", 0o700, 0}, {"home", 0o755, 0}, {"mnt", 0o755, 0}, {"srv", 0o755, 0}, {"opt", 0o755, 0}, {"data", 0o755, 0},
		{sandboxHome[1:], 0o755, sandboxID}, {"workspace", 0o755, sandboxID},
		{"usr/local/bin", 0o755, 0}, {"usr/local/sbin", 0o755, 0}, {"usr/local/lib", 0o755, 0}, {"usr/local/include", 0o755, 0},
		{"usr/local/share", 0o755, 0}, {"usr/local/etc", 0o755, 0}, {"usr/local/src", 0o755, 0},
	} {
		if err := makeDir(root, d.name, d.mode, d.id, d.id); err != nil {
			return err
		}
	}
	return errors.Join(makeSymlink(root, "/run", "var/run"), makeSymlink(root, "/run/lock", "var/lock"))
}

// configureBase makes the effects of the base's packages.
func configureBase(ctx context.Context, root *os.Root, run runner) error {
	if err := accounts(root); err != nil {
		return err
	}
	for _, c := range []struct{ from, to string }{
		{"usr/share/base-files/profile", "etc/profile"},
		{"usr/share/base-files/dot.profile", "root/.profile"},
		{"usr/share/base-files/dot.bashrc", "root/.bashrc"},
		{"etc/skel/.profile", "home/sandbox/.profile"},
		{"etc/skel/.bashrc", "home/sandbox/.bashrc"},
		{"usr/share/base-files/nsswitch.conf", "etc/nsswitch.conf"},
		{"usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"},
	} {
		b, err := root.ReadFile(c.from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := errors.Join(err, writeFile(root, c.to, string(b), 0o644)); err != nil {
			return err
		}
	}
	for _, f := range []string{".profile", ".bashrc"} {
		if err := root.Chown(sandboxHome[1:]+"/"+f, sandboxID, sandboxID); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/machine-id":               "",
		"etc/resolv.conf":              "",
		"etc/hostname":                 "sandbox\n",
		"etc/hosts":                    "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n",
		"etc/timezone":                 "Etc/UTC\n",
		"etc/environment":              "",
		"etc/fstab":                    "",
		"etc/shells":                   "/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n/bin/dash\n/usr/bin/dash\n",
		"etc/dpkg/dpkg.cfg.d/left-out": pathExclude(),
	} {
		if err := writeFile(root, name, text, 0o644); err != nil {
			return err
		}
	}
	links := map[string]string{"etc/localtime": "/usr/share/zoneinfo/Etc/UTC", "etc/mtab": "../proc/self/mounts"}
	if !present(root, "usr/bin/sh") {
		links["usr/bin/sh"] = "dash"
	}
	for name, target := range links {
		if err := makeSymlink(root, target, name); err != nil {
			return err
		}
	}
	if err := certificates(root); err != nil {
		return err
	}
	return run(ctx, "/usr/bin/openssl", "rehash", "/etc/ssl/certs")
}

// certificates makes what update-ca-certificates would: the list, the bundle and a link for each.
func certificates(root *os.Root) error {
	const dir = "usr/share/ca-certificates"
	names, err := fs.Glob(root.FS(), dir+"/mozilla/*.crt")
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("ca-certificates brought no certificate")
	}
	var list, bundle strings.Builder
	for _, name := range names {
		b, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		list.WriteString(strings.TrimPrefix(name, dir+"/") + "\n")
		bundle.WriteString(strings.TrimRight(string(b), "\n") + "\n")
		link := "etc/ssl/certs/" + strings.TrimSuffix(path.Base(name), ".crt") + ".pem"
		if err := makeSymlink(root, "/"+name, link); err != nil {
			return err
		}
	}
	return errors.Join(
		writeFile(root, "etc/ca-certificates.conf", list.String(), 0o644),
		writeFile(root, "etc/ssl/certs/ca-certificates.crt", bundle.String(), 0o644))
}

// configureLayer makes the effects that any layer's packages may need.
func configureLayer(ctx context.Context, root *os.Root, run runner, debs []*deb) error {
	for _, d := range debs {
		for _, a := range alternativesOf(string(d.control["postinst"])) {
			args, ok := a.args(root)
			if !ok {
				continue
			}
			if err := run(ctx, args...); err != nil {
				return err
			}
		}
	}
	if err := run(ctx, "/usr/sbin/ldconfig"); err != nil {
		return err
	}
	// It holds inode numbers and times of this build.
	if err := root.Remove("var/cache/ldconfig/aux-cache"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(python(ctx, root, run), golang(ctx, root, run))
}

// python makes the name python and the standard library's bytecode, which a read-only layer could never keep.
func python(ctx context.Context, root *os.Root, run runner) error {
	if !present(root, "usr/bin/python3") {
		return nil
	}
	if !present(root, "usr/bin/python") {
		if err := makeSymlink(root, "python3", "usr/bin/python"); err != nil {
			return err
		}
	}
	dirs, err := fs.Glob(root.FS(), "usr/lib/python3*")
	if err != nil {
		return err
	}
	argv := []string{"/usr/bin/python3", "-I", "-m", "compileall", "-q"}
	for _, d := range dirs {
		argv = append(argv, "/"+d)
	}
	return run(ctx, argv...)
}

func pathExclude() string {
	var b strings.Builder
	for _, d := range dropped {
		fmt.Fprintf(&b, "path-exclude=/%s*\n", d)
	}
	b.WriteString("path-exclude=/usr/share/doc/*\npath-include=/usr/share/doc/*/copyright\n")
	return b.String()
}

// writeFile writes a file of root's user, making its folder; a link in its place is replaced, not followed.
func writeFile(root *os.Root, name, text string, mode fs.FileMode) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.WriteFile(name, []byte(text), mode); err != nil {
		return err
	}
	return root.Chmod(name, mode)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
