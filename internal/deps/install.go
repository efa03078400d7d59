package deps

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/index"
	"outpost.run/outpost/sandbox"
)

// bounds are what a layer may come to.
var bounds = image.Bounds{Bytes: 2 << 30, Files: 300_000}

// install makes the set in a machine that is thrown away.
func (in *Installer) install(ctx context.Context, key string, r Request, p plan) (Set, error) {
	img, err := in.imageFor(ctx, r.Image, p.packages)
	if err != nil {
		return Set{}, err
	}
	w, err := in.open(ctx, img.Layers, img.Config.Env)
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
func (in *Installer) imageFor(ctx context.Context, img image.Image, packages string) (image.Image, error) {
	if packages == "" || !strings.HasPrefix(img.Ref, "deb:") {
		return img, nil
	}
	return in.Images.Ensure(ctx, With(img.Ref, packages), nil)
}

// With adds packages to a Debian image's reference.
func With(ref string, packages ...string) string {
	glue := ","
	if !strings.Contains(ref, "include=") {
		glue = "?include="
	}
	return ref + glue + strings.Join(packages, ",")
}

// fetch runs the installer while the machine reaches the index, and nothing else.
func (in *Installer) fetch(ctx context.Context, w *workshop, r Request, p plan) error {
	up := p.upstream
	if up.Empty() {
		var err error
		if up, err = in.ask(ctx, w, p); err != nil {
			return err
		}
	}
	if p.manager == index.Go {
		w.env = append(w.env, in.Host.GoSums()...)
		var err error
		if up.SumDB, err = w.sumDB(ctx); err != nil {
			return err
		}
	}
	stop, err := w.serve(index.NewProxy(up, in.Log))
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

// ask learns the manager's own index, which neither the operator nor the host has replaced, from the manager.
func (in *Installer) ask(ctx context.Context, w *workshop, p plan) (index.Upstream, error) {
	var out bytes.Buffer
	_, said, err := w.script(ctx, p.ask, nil, &out)
	if err != nil {
		return index.Upstream{}, err
	}
	m := p.address.FindStringSubmatch(out.String())
	if m == nil {
		in.Log.Warn("a package manager did not tell its own index", "manager", p.manager, "said", LastLines(out.String()+said))
		return index.Upstream{}, sandbox.Errorf(sandbox.NotSupported, nil, "this server names no package index for %s, and the image's does not tell its own: the operator can set one (deps)", p.manager)
	}
	up, err := index.Parse(p.manager, m[1])
	if err != nil {
		return up, err
	}
	return in.Host.Credentials(up), nil
}

// described is what a recipe's description says. It comes from the machine.
type described struct {
	At, Bin, Home string
	Paths         [][2]string
	Resolved      []string
}

const resolvedMost = 10_000

func describe(ctx context.Context, w *workshop, p plan) (Set, error) {
	var out bytes.Buffer
	code, said, err := w.script(ctx, p.describe, nil, &limited{w: &out, left: 4 << 20})
	if err != nil {
		return Set{}, err
	}
	var d described
	if code != 0 || json.Unmarshal(out.Bytes(), &d) != nil {
		return Set{}, failed(said + "\nwhat was installed can't be listed")
	}
	if len(d.Resolved) > resolvedMost {
		return Set{}, failed(fmt.Sprintf("%d packages are more than are installed at once", len(d.Resolved)))
	}
	for _, path := range []string{d.At, d.Home} {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\n\x00") || strings.Contains(path+"/", "/../") {
			return Set{}, failed("the image has no place for it")
		}
	}
	return Set{Manager: p.manager, At: d.At, Bin: d.Bin, Home: d.Home, Paths: d.Paths, Resolved: d.Resolved}, nil
}

// keepTree makes a layer of what was installed.
func (in *Installer) keepTree(ctx context.Context, w *workshop, key string, p plan) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, out := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		text := `mkdir -p ` + p.tree + ` && exec tar -C ` + p.tree + ` -cf - `
		if p.without != "" {
			text += `--exclude ` + p.without + ` `
		}
		code, said, err := w.script(ctx, text+".", nil, out)
		if err == nil && code != 0 {
			err = fmt.Errorf("tar: %s", LastLines(said))
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
	case errors.Is(sendErr, errTooLarge), sandbox.CodeOf(err) == sandbox.ImageNotFound:
		return "", failed("what was installed can't be kept: " + err.Error())
	case err != nil:
		return "", err
	}
	return layer, nil
}

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
