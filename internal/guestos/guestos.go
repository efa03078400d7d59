// Package guestos makes what a guest boots: a kernel, taken out of a Debian package, and an initramfs with the guest's first process and the
// modules that it needs.
package guestos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/sandbox"
)

// modules are what a guest needs beyond what cloud kernels have built in: its bus and disks, its line to the host, its file systems, and the
// links of its machine.
var modules = []string{"virtio_mmio", "virtio_pci", "virtio_blk", "virtio_console", "vsock", "vmw_vsock_virtio_transport", "erofs", "overlay", "tun"}

// Options say what to make a System of.
type Options struct {
	Dir    string // where it is kept
	Suite  string // the Debian suite whose linux-image-cloud-amd64 it is; "": trixie
	Kernel string // the operator's own package file instead
	Init   []byte // the first process, static
}

// System is what a guest boots.
type System struct {
	Kernel  string // an ELF file
	Initrd  string
	Release string // of the kernel
	Build   string // names both files by what they were made of
}

// Maker makes the System at the first need and keeps it.
type Maker struct {
	o    Options
	mu   sync.Mutex
	made *System
}

// NewMaker makes nothing yet.
func NewMaker(o Options) *Maker {
	if o.Suite == "" {
		o.Suite = "trixie"
	}
	return &Maker{o: o}
}

// Get gives the System. One call makes it, the others wait for it.
//
// Errors: MicroVMUnavailable, with what mends it; that of ctx.
func (m *Maker) Get(ctx context.Context) (System, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made != nil {
		return *m.made, nil
	}
	s, err := m.make(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return System{}, ctx.Err()
		}
		return System{}, sandbox.Errorf(sandbox.MicroVMUnavailable, err, "the guest's kernel can't be had: %s; name a package of one by engines.microvm.kernel, or let this host's apt reach Debian's archive", reason(err))
	}
	m.made = &s
	return s, nil
}

func reason(err error) string {
	if e, ok := errors.AsType[*sandbox.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// Found gives the System if it was made earlier, by this process or a former one; it fetches nothing.
func (m *Maker) Found() (System, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made == nil {
		if s, err := m.open(m.path()); err == nil {
			m.made = &s
		}
	}
	if m.made == nil {
		return System{}, false
	}
	return *m.made, true
}

// path is the folder of a System: named by the init and what else it is made of but for the package, whose newer versions come with a newer
// outpost or when the folder is removed.
func (m *Maker) path() string {
	sum := sha256.New()
	fmt.Fprintln(sum, m.o.Suite, m.o.Kernel, modules)
	if m.o.Kernel != "" {
		if st, err := os.Stat(m.o.Kernel); err == nil {
			fmt.Fprintln(sum, st.Size(), st.ModTime())
		}
	}
	sum.Write(m.o.Init)
	return filepath.Join(m.o.Dir, hex.EncodeToString(sum.Sum(nil)[:8]))
}

func (m *Maker) make(ctx context.Context) (System, error) {
	final := m.path()
	if s, err := m.open(final); err == nil {
		return s, nil
	}
	if err := os.MkdirAll(m.o.Dir, 0o755); err != nil {
		return System{}, err
	}
	p, err := m.fetch(ctx)
	if err != nil {
		return System{}, err
	}
	draft, err := os.MkdirTemp(m.o.Dir, "new-")
	if err != nil {
		return System{}, err
	}
	defer os.RemoveAll(draft) // only files are in it
	if err := write(draft, p, m.o.Init); err != nil {
		return System{}, err
	}
	if err := os.Chmod(draft, 0o755); err != nil {
		return System{}, err
	}
	if err := os.Rename(draft, final); err != nil {
		return System{}, err
	}
	m.forget(final)
	return m.open(final)
}

// forget removes the Systems of former inits, and what was half made. Guests that run have theirs in their memory.
func (m *Maker) forget(spare string) {
	old, _ := filepath.Glob(filepath.Join(m.o.Dir, "*"))
	for _, dir := range old {
		if dir == spare || filepath.Base(dir) == "apt" {
			continue
		}
		for _, name := range []string{"vmlinux", "initrd", "release"} {
			_ = os.Remove(filepath.Join(dir, name))
		}
		_ = os.Remove(dir)
	}
}

// spared are packages that a kernel wants where it is installed.
var spared = []string{"kmod", "linux-base", "initramfs-tools", "dracut", "linux-initramfs-tool"}

func (m *Maker) fetch(ctx context.Context) (image.Package, error) {
	if m.o.Kernel != "" {
		return image.ReadPackage(m.o.Kernel)
	}
	return image.FetchPackage(ctx, filepath.Join(m.o.Dir, "apt"), m.o.Suite, "linux-image-cloud-amd64", "linux-image-6", spared, nil)
}

func write(dir string, p image.Package, init []byte) error {
	t, err := readTree(p.Data)
	if err != nil {
		return err
	}
	if err := supported(t.release); err != nil {
		return err
	}
	kernel, err := vmlinux(t.image)
	if err != nil {
		return err
	}
	source, err := t.source()
	if err != nil {
		return err
	}
	mods, err := source.Closure(modules)
	if err != nil {
		return err
	}
	var initrd bytes.Buffer
	if err := WriteInitramfs(&initrd, init, mods, "root"); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"vmlinux": kernel, "initrd": initrd.Bytes(), "release": []byte(t.release)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o444); err != nil {
			return err
		}
	}
	return nil
}

func (m *Maker) open(dir string) (System, error) {
	release, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return System{}, err
	}
	return System{Kernel: filepath.Join(dir, "vmlinux"), Initrd: filepath.Join(dir, "initrd"), Release: string(release), Build: filepath.Base(dir) + "-" + string(release)}, nil
}

var version = regexp.MustCompile(`^(\d+)\.(\d+)`)

// supported wants the kernel that everything here is tested with, or a newer one.
func supported(release string) error {
	v := version.FindStringSubmatch(release)
	if v == nil {
		return fmt.Errorf("%q is no kernel's version", release)
	}
	major, _ := strconv.Atoi(v[1])
	minor, _ := strconv.Atoi(v[2])
	if major < 6 || major == 6 && minor < 1 {
		return fmt.Errorf("kernel %s is too old for a guest: 6.1 is the least", release)
	}
	return nil
}
