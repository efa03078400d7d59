package deps

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/index"
	"outpost.run/outpost/sandbox"
)

// bounds are what a layer may come to.
var bounds = image.Bounds{Bytes: 2 << 30, Files: 300_000, Meta: 32 << 20}

// install makes the set in a machine of r's image, with the installer in it, that is thrown away.
func (in *Installer) install(ctx context.Context, key string, r Request, p plan) (Set, error) {
	w, err := in.open(ctx, r.Image.Layers, r.Image.Config.Env, r.MicroVM)
	if err != nil {
		return Set{}, err
	}
	defer in.Machines.End(w.m)
	code, said, err := w.script(ctx, p.present, nil, nil)
	if err != nil {
		return Set{}, err
	}
	if code != 0 {
		return Set{}, sandbox.Errorf(sandbox.NotSupported, nil, "the image has no %s to install dependencies with: use an image that has it, or leave image out (%s)", p.manager, LastLines(said))
	}
	if err := in.fetch(ctx, w, r, p); err != nil {
		return Set{}, err
	}
	set, err := describe(ctx, w, p)
	if err != nil {
		return Set{}, err
	}
	set.Key = key
	if set.Layer, err = in.keepTree(ctx, w, key, p); err != nil {
		return Set{}, err
	}
	if err := in.keep(set); err != nil {
		return Set{}, sandbox.Errorf(sandbox.Internal, err, "what was installed could not be noted")
	}
	return set, nil
}

// imageFor is the image with the installer: a Debian one gets it added, another must have it.
func (in *Installer) imageFor(ctx context.Context, r Request, packages []string) (image.Image, error) {
	if len(packages) == 0 || !strings.HasPrefix(r.Image.Ref, "deb:") {
		return r.Image, nil
	}
	return in.Images.EnsureFor(ctx, builder(r.Namespace), With(r.Image.Ref, packages...), nil)
}

// With adds packages to a Debian image's reference.
func With(ref string, packages ...string) string {
	if len(packages) == 0 {
		return ref
	}
	glue := ","
	if !strings.Contains(ref, "include=") {
		glue = "?include="
	}
	return ref + glue + strings.Join(packages, ",")
}

// fetch runs the installer while the machine reaches the index, and nothing else.
func (in *Installer) fetch(ctx context.Context, w *workshop, r Request, p plan) error {
	up, err := in.whole(ctx, p)
	if err != nil {
		return err
	}
	if p.manager == index.Go {
		w.env = append(w.env, in.Host.GoSums()...)
	}
	stop, err := w.serve(ctx, index.NewProxy(up, in.Log))
	if err != nil {
		return sandbox.Errorf(sandbox.Internal, err, "the package index could not be shown to the installation")
	}
	defer stop()
	args := make([]string, len(r.Deps))
	for i, d := range r.Deps {
		args[i] = d
		if p.spell != nil {
			args[i] = p.spell(d)
		}
	}
	code, said, err := w.script(ctx, p.install(up), nil, nil, args...)
	if err != nil {
		return err
	}
	if code != 0 {
		return failed(said)
	}
	return nil
}

const (
	resolvedMost = 10_000
	resolvedLong = 512 // bytes of each
)

// describe lists what was installed, and says where it goes. An image that is hostile tells what it likes: it can only
// ever lead its own sandboxes astray.
func describe(ctx context.Context, w *workshop, p plan) (Set, error) {
	var out bytes.Buffer
	code, said, err := w.script(ctx, p.describe, nil, &limited{w: &out, left: 4 << 20})
	if err != nil {
		return Set{}, err
	}
	var d struct {
		At, Home string // of Python
		Bin      bool
		Resolved []string
	}
	if code != 0 || json.Unmarshal(out.Bytes(), &d) != nil {
		return Set{}, failed(said + "\nwhat was installed can't be listed")
	}
	if len(d.Resolved) > resolvedMost {
		return Set{}, failed(fmt.Sprintf("%d packages are more than are installed at once", len(d.Resolved)))
	}
	for i, name := range d.Resolved {
		d.Resolved[i] = strings.Map(printable, name[:min(len(name), resolvedLong)])
	}
	s := Set{Manager: p.manager, At: p.at, Home: p.at, Resolved: d.Resolved}
	if d.Bin {
		s.Bin = p.bin
	}
	if p.at == "" {
		if !place.MatchString(d.At) || !place.MatchString(d.Home) {
			return Set{}, failed("the image's interpreter has no directory for packages")
		}
		s.At, s.Home = d.At, d.Home
		if s.At == pythonTree {
			s.Paths = [][2]string{{"PYTHONPATH", pythonTree}}
		}
	}
	return s, nil
}

// place is where packages may be shown: some directory of its own, and none of the kernel's.
var place = regexp.MustCompile(`^/(?:usr|opt|home|root|var|srv)(?:/[A-Za-z0-9_+-][A-Za-z0-9._+-]*){2,}$|^` + pythonTree + `$`)

// keepTree makes a layer of what was installed.
func (in *Installer) keepTree(ctx context.Context, w *workshop, key string, p plan) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, out := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		code, said, err := w.script(ctx, pack, nil, out, p.tree, p.without)
		if err == nil && code != 0 {
			err = failed(said)
		}
		out.CloseWithError(err) // nil: the end
		sent <- err
	}()
	layer, err := in.Layers.KeepTar(ctx, key, r, bounds)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if err != nil {
		cancel()
	}
	switch sendErr := <-sent; {
	case sandbox.CodeOf(sendErr) == sandbox.DepsFailed, sandbox.CodeOf(sendErr) == sandbox.Lost:
		return "", sendErr
	case sandbox.CodeOf(err) == sandbox.Invalid:
		return "", failed("what was installed can't be kept: " + err.Error())
	case err != nil:
		return "", err
	}
	return layer, nil
}

// pack writes the tree of $1, less $2, in which only files, directories and links are left, as root's and readable for
// all; of GNU's tar, equal trees give equal bytes. Their time is one that archives of any kind can tell.
const pack = `mkdir -p "$1" && cd "$1" && rm -rf "./${2:-.none}" && find . ! -type f ! -type d ! -type l -delete &&
chmod -R u+rwX,go+rX,go-w . || exit
tar --version 2>/dev/null | grep -q GNU && set -- --sort=name --mtime=@315619200 --owner=0 --group=0 --numeric-owner || set --
exec tar "$@" -cf - .`

// limited refuses what is over a limit.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, errTooLarge
	}
	return l.w.Write(b)
}
