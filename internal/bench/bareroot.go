package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image"
)

// Roots are images mounted for the bare side, each once. The mounts end with the process.
type Roots struct {
	images *image.Store
	kernel *host.Kernel
	dir    string
	null   *os.File
	made   map[string]*root
	number int // told to the last program
}

// root is one mounted image.
type root struct {
	dir      string
	prepared map[string]bool // programs
}

// NewRoots mounts below dir, which stays empty for everybody else: the process must be in a mount namespace of its own.
func NewRoots(images *image.Store, dir string) (*Roots, error) {
	if err := host.CheckPrivateMounts(); err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	r := &Roots{images: images, kernel: host.New(), dir: dir, null: null, made: map[string]*root{}}
	return r, r.furnish(dir, "tmpfs")
}

// of gives the image's root: read-only, with a /tmp in memory, a /dev and the host's /proc.
func (r *Roots) of(ref string) (*root, error) {
	if made := r.made[ref]; made != nil {
		return made, nil
	}
	img, ok := r.images.Get(ref)
	if !ok {
		return nil, fmt.Errorf("image %s is not in the store", ref)
	}
	dir, err := r.mount(filepath.Join(r.dir, strconv.Itoa(len(r.made))), img.Layers)
	if err != nil {
		return nil, err
	}
	for place, kind := range map[string]string{"tmp": "tmpfs", "dev": "tmpfs", "proc": "proc"} {
		if err := r.furnish(filepath.Join(dir, place), kind); err != nil {
			return nil, err
		}
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8, "urandom": 9} { // Source: admin-guide/devices.txt
		if err := unix.Mknod(filepath.Join(dir, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return nil, fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	r.made[ref] = &root{dir: dir, prepared: map[string]bool{}}
	return r.made[ref], nil
}

func (r *Roots) mount(dir string, layers []string) (string, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	attach := func(name string, tree *os.File) (string, error) {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			return "", err
		}
		defer tree.Close()
		return at, r.kernel.Attach(tree, at)
	}
	var lowers []string
	for i, layer := range layers {
		tree, err := r.kernel.MountImage(layer)
		if err != nil {
			return "", err
		}
		at, err := attach(strconv.Itoa(i), tree)
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

func (r *Roots) furnish(dir, kind string) error {
	tree, err := host.FsMount(kind, "outpost-bare", 0)
	if err != nil {
		return fmt.Errorf("mount a %s: %w", kind, err)
	}
	defer tree.Close()
	return r.kernel.Attach(tree, dir)
}
