package deps

import (
	"bytes"
	"context"
	"regexp"
	"strings"

	"outpost.run/outpost/internal/index"
	"outpost.run/outpost/sandbox"
)

// defaults are what managers say of themselves where neither the operator nor the host says more. They are asked in an
// image that we make of signed packages, never in a tenant's: what is named here is reached wherever it lies.
type defaults struct {
	turn  chan struct{} // of who asks and of who reads known; others wait no longer than they like
	known map[index.Manager]index.Upstream
}

// whole is the plan's upstream with all that it lacks.
func (in *Installer) whole(ctx context.Context, p plan) (index.Upstream, error) {
	up := p.upstream
	if !up.Empty() && (p.manager != index.Go || up.SumDB != "") {
		return up, nil
	}
	own, err := in.ask(ctx, p.recipe)
	if err != nil {
		return up, err
	}
	if up.Empty() {
		up.Bases = own.Bases
	}
	if up.SumDB == "" {
		up.SumDB = own.SumDB
	}
	return up, nil
}

func (in *Installer) ask(ctx context.Context, r recipe) (index.Upstream, error) {
	select {
	case in.defaults.turn <- struct{}{}:
		defer func() { <-in.defaults.turn }()
	case <-ctx.Done():
		return index.Upstream{}, ctx.Err()
	}
	if up, ok := in.defaults.known[r.manager]; ok {
		return up, nil
	}
	img, err := in.Images.EnsureFor(ctx, builder(""), With(r.image, r.packages...), nil)
	if err != nil {
		return index.Upstream{}, err
	}
	w, err := in.open(ctx, img.Layers, img.Config.Env, false)
	if err != nil {
		return index.Upstream{}, err
	}
	defer in.Machines.End(w.m)
	var out bytes.Buffer
	_, said, err := w.script(ctx, r.ask, nil, &limited{w: &out, left: 1 << 20})
	if err != nil {
		return index.Upstream{}, err
	}
	m := r.address.FindStringSubmatch(out.String())
	if m == nil {
		in.Log.Warn("a package manager did not tell its own index", "manager", r.manager, "said", LastLines(out.String()+said))
		return index.Upstream{}, sandbox.Errorf(sandbox.NotSupported, nil, "this server names no package index for %s, and %s does not tell its own: the operator can set one (deps)", r.manager, r.manager)
	}
	up, err := index.Parse(r.manager, m[1])
	if err != nil {
		return up, err
	}
	up = in.Host.Credentials(up)
	if len(m) > 2 {
		if name, _, _ := strings.Cut(m[2], "+"); sumName.MatchString(name) {
			up.SumDB = name
		}
	}
	if in.defaults.known == nil {
		in.defaults.known = map[index.Manager]index.Upstream{}
	}
	in.defaults.known[r.manager] = up
	return up, nil
}

var sumName = regexp.MustCompile(`^[a-z0-9-]+(?:\.[a-z0-9-]+)+$`)
