package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// basePackages is what every image carries (their dependencies come with them).
var basePackages = []string{
	"apt", "base-files", "base-passwd", "bash", "bzip2", "ca-certificates", "coreutils", "curl", "dash", "debianutils",
	"diffutils", "dpkg", "findutils", "git", "grep", "gzip", "hostname", "init-system-helpers", "less", "libc-bin", "mawk",
	"ncurses-base", "ncurses-bin", "netbase", "passwd", "perl-base", "procps", "sed", "tar", "tzdata", "util-linux", "xz-utils",
}

// recipe is part of every layer's key: raise it when a layer of the same packages would come out otherwise.
const recipe = "2"

// build makes the image of r: its base layer, and one of what it includes beyond the base. Layers that are there
// already are taken as they are.
func (s *Store) build(ctx context.Context, r reference, step func(string, int64, int64)) (Image, error) {
	ref := r.String()
	unlock, err := s.lock(ctx, buildLock)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if img, ok := s.Get(ref); ok { // another process made it meanwhile
		return img, nil
	}
	step("lists", 0, 0)
	a, err := openApt(ctx, r.suite, filepath.Join(s.dir, "apt", r.suite))
	if err != nil {
		return Image{}, err
	}
	if err := a.update(ctx); err != nil {
		return Image{}, err
	}
	base, err := s.layer(ctx, a, layerSpec{names: basePackages}, step)
	if err != nil {
		return Image{}, err
	}
	layers := []string{base}
	if len(r.include) > 0 {
		top, err := s.layer(ctx, a, layerSpec{names: r.include, lower: base}, step)
		if err != nil {
			return Image{}, err
		}
		if top != "" {
			layers = append(layers, top)
		}
	}
	img, err := s.keep(ref, manifest{Layers: layers, Config: defaultConfig})
	if err != nil {
		return Image{}, err
	}
	return img, a.forgetDownloads()
}

var defaultConfig = Config{
	User:       sandboxUser,
	Env:        [][2]string{{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, {"LANG", "C.UTF-8"}},
	WorkingDir: "/workspace",
}

// layerSpec is one layer to make: names and what they need beyond lower, a layer's digest, or "" for a base.
type layerSpec struct {
	names []string
	lower string
}

// layer gives the digest of the layer of spec, making it where it is missing; "" where lower has it all already.
func (s *Store) layer(ctx context.Context, a *apt, spec layerSpec, step func(string, int64, int64)) (string, error) {
	step("resolve", 0, 0)
	var installed []byte
	if spec.lower != "" {
		var err error
		if installed, err = s.readFromLayer(spec.lower, dpkgDir+"/status", maxDebBytes); err != nil {
			return "", err
		}
	}
	files, err := a.resolve(ctx, installed, spec.names)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", nil
	}
	key := layerKey(a.suite, spec.lower, files)
	if digest, ok := s.recorded(s.madePath(key)); ok {
		return digest, nil
	}
	step("download", 0, 100)
	if err := a.download(ctx, spec.names, func(p int64) { step("download", p, 100) }); err != nil {
		return "", err
	}
	dir, release, err := s.tempDir()
	if err != nil {
		return "", err
	}
	defer release()
	tree, stamp, err := s.assemble(ctx, a, dir, spec, files, step)
	if err != nil {
		return "", err
	}
	out, err := os.OpenFile(filepath.Join(dir, "layer"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer out.Close()
	if err := writeLayer(tree, out, stamp, func(n int64) {
		if n%500 == 0 {
			step("write", n, 0)
		}
	}); err != nil {
		return "", sandbox.Errorf(sandbox.Internal, err, "the layer could not be written")
	}
	return s.takeIn(ctx, s.madePath(key), out)
}

// layerKey names a layer by what it is made of.
func layerKey(suite, lower string, files []debFile) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s\n", recipe, suite, lower)
	for _, f := range files {
		fmt.Fprintln(h, f.sha256)
	}
	return "deb\n" + hex.EncodeToString(h.Sum(nil))
}

// assemble puts the tree of a layer together below dir and answers where it lies.
func (s *Store) assemble(ctx context.Context, a *apt, dir string, spec layerSpec, files []debFile, step func(string, int64, int64)) (tree string, stamp time.Time, err error) {
	tree = filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", stamp, err
	}
	err = inWorkshop(func(w *workshop) error {
		view := tree // the root as its programs will see it
		if spec.lower != "" {
			var err error
			if view, err = overlay(w, s.layerPath(spec.lower), tree, dir); err != nil {
				return err
			}
		}
		root, err := os.OpenRoot(view)
		if err != nil {
			return err
		}
		defer root.Close()
		if spec.lower == "" {
			if err := skeleton(root); err != nil {
				return err
			}
		}
		debs, newest, err := unpackAll(ctx, root, a, files, step)
		stamp = newest
		if err != nil {
			return err
		}
		step("configure", 0, 0)
		return configureTree(ctx, w, root, view, spec.lower == "", debs)
	})
	if err != nil && ctx.Err() != nil {
		return "", stamp, ctx.Err()
	}
	if err != nil && sandbox.CodeOf(err) == sandbox.Internal {
		err = sandbox.Errorf(sandbox.Internal, err, "the image could not be put together")
	}
	return tree, stamp, err
}

// overlay mounts the lower layer with tree over it, so that what is unpacked and made lands in tree.
func overlay(w *workshop, layer, tree, dir string) (view string, err error) {
	view = filepath.Join(dir, "view")
	lower, work := filepath.Join(dir, "lower"), filepath.Join(dir, "work")
	for _, d := range []string{view, lower, work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return "", err
		}
	}
	if err := w.mountLayer(layer, lower); err != nil {
		return "", err
	}
	// Relative names, as a colon or comma in the store's path would part the options. The thread has a working
	// directory of its own.
	if err := unix.Chdir(dir); err != nil {
		return "", err
	}
	return view, w.mount("overlay", view, "overlay", 0,
		"lowerdir="+filepath.Base(lower)+",upperdir="+filepath.Base(tree)+",workdir="+filepath.Base(work))
}

func configureTree(ctx context.Context, w *workshop, root *os.Root, view string, base bool, debs []*deb) error {
	if err := w.mountDev(view); err != nil {
		return err
	}
	run := func(ctx context.Context, argv ...string) error { return w.run(ctx, view, argv...) }
	if base {
		if err := configureBase(ctx, root, run); err != nil {
			return err
		}
	}
	return configureLayer(ctx, root, run, debs)
}

// unpackAll unpacks the packages in their order, decompressing ahead, and records them. It answers their control
// archives and the time of the newest file.
func unpackAll(ctx context.Context, root *os.Root, a *apt, files []debFile, step func(string, int64, int64)) ([]*deb, time.Time, error) {
	var stamp time.Time
	db, err := openDatabase(root)
	if err != nil {
		return nil, stamp, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var debs []*deb
	for i, next := range decompressAhead(ctx, a, files) {
		var got opened
		select {
		case got = <-next:
		case <-ctx.Done():
			return nil, stamp, ctx.Err()
		}
		if got.err != nil {
			return nil, stamp, got.err
		}
		u, err := unpack(root, got.deb.data)
		if err != nil {
			return nil, stamp, fmt.Errorf("%s: %w", files[i].file, err)
		}
		got.deb.data = nil
		if u.stamp.After(stamp) {
			stamp = u.stamp
		}
		if err := db.add(got.deb, u); err != nil {
			return nil, stamp, fmt.Errorf("%s: %w", files[i].file, err)
		}
		debs = append(debs, got.deb)
		step("unpack", int64(i+1), int64(len(files)))
	}
	return debs, stamp, db.save()
}

type opened struct {
	deb *deb
	err error
}

// decompressAhead reads packages two at a time, ahead of who takes them, and checks each against the signed lists' sum.
func decompressAhead(ctx context.Context, a *apt, files []debFile) []chan opened {
	results := make([]chan opened, len(files))
	for i := range results {
		results[i] = make(chan opened)
	}
	for worker := range 2 {
		go func() {
			for i := worker; i < len(files); i += 2 {
				d, err := openDeb(a.path(files[i]), files[i].sha256)
				select {
				case results[i] <- opened{d, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return results
}

func openDeb(name, sum string) (*deb, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("%s is not what the signed lists describe", filepath.Base(name))
	}
	d, err := readDeb(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return d, nil
}

// forgetDownloads removes the package files: what was in them is in a layer now.
func (a *apt) forgetDownloads() error {
	names, err := filepath.Glob(filepath.Join(a.dir, "cache", "archives", "*.deb"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// readFromLayer reads one file of a layer without mounting it.
func (s *Store) readFromLayer(digest, name string, most int64) ([]byte, error) {
	f, err := os.Open(s.layerPath(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tree, err := erofs.Open(f)
	if err != nil {
		return nil, err
	}
	file, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, most))
}
