package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/deps"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// ServeDeps lets execs have dependencies. It is called before Sync; o's machines are the node's.
func (n *Node) ServeDeps(o deps.Options) (err error) {
	o.Machines, o.Images, o.Log = depMachines{n}, n.images, n.log
	n.installer, err = deps.New(o)
	return err
}

// depMachines are the machines of installations: the node's, without a sandbox.
type depMachines struct{ n *Node }

func (d depMachines) Start(ctx context.Context, spec engine.MachineSpec) (engine.Machine, error) {
	id, err := d.n.own()
	if err != nil {
		return nil, err
	}
	spec.ID = id
	limited, cancel := d.n.bounded(ctx, startTime)
	defer cancel()
	m, err := d.n.engine.Start(limited, spec)
	if err != nil {
		d.n.disown(id)
	}
	return m, err
}

func (d depMachines) End(m engine.Machine) { d.n.end(m) }

// needs are what an exec's machine must have beside its sandbox's.
type needs struct {
	set    deps.Set
	layers []string       // instead of the image's; nil for those
	mounts []engine.Mount // that must be there from the start
	took   time.Duration
}

// fresh says that no machine that is there already will do.
func (x needs) fresh() bool { return x.layers != nil || x.mounts != nil }

// needsOf installs an exec's dependencies, or finds them installed.
func (n *Node) needsOf(ctx context.Context, b *box, e service.ExecSpec) (needs, error) {
	if len(e.Deps) == 0 {
		return needs{}, nil
	}
	if n.installer == nil {
		return needs{}, sandbox.Errorf(sandbox.NotSupported, nil, "this server installs no dependencies; leave deps out")
	}
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	defer context.AfterFunc(b.ctx, cancel)()
	img, err := n.imageOf(ctx, b)
	if err != nil {
		return needs{}, err
	}
	language := e.Language
	if language == "" {
		language = b.spec.Language
	}
	var x needs
	x.set, err = n.installer.Install(ctx, deps.Request{Namespace: b.spec.Namespace, Language: language, Image: img, Deps: e.Deps})
	x.took = time.Since(began)
	if err == nil && b.spec.Mode == sandbox.Ephemeral && b.spec.Security.Preset == sandbox.Maximum {
		x.mounts = []engine.Mount{x.mount(x.set.At)} // later its root can't be written, and has no place for it
	}
	return x, err
}

func (x needs) mount(at string) engine.Mount {
	return engine.Mount{Kind: engine.LayerMount, Source: x.set.Layer, Path: at}
}

// supply gives a machine what the exec needs: an ephemeral one sees the layer, a stateful one gets it for good.
func (n *Node) supply(ctx context.Context, b *box, m engine.Machine, x *needs) error {
	if x.set.Layer == "" {
		return nil
	}
	began := time.Now()
	defer func() { x.took += time.Since(began) }()
	limited, cancel := n.bounded(ctx, agentTime)
	defer cancel()
	if b.spec.Mode == sandbox.Ephemeral {
		if x.mounts != nil {
			return nil
		}
		return m.Attach(limited, x.mount(x.set.At))
	}
	return n.settle(ctx, b, m, x)
}

// depsOf remembers what was installed into a stateful sandbox.
type settled struct {
	mu   sync.Mutex
	keys map[string]bool
}

// settle copies a layer onto a stateful sandbox's own disk.
func (n *Node) settle(ctx context.Context, b *box, m engine.Machine, x *needs) error {
	b.settled.mu.Lock()
	defer b.settled.mu.Unlock()
	if b.settled.keys[x.set.Key] {
		return nil
	}
	_ = ctx
	_ = m
	return sandbox.Errorf(sandbox.NotSupported, nil, "not yet")
}

// environment is what the exec's environment must say for its dependencies to be found, when all says what it says
// otherwise.
func (x needs) environment(all [][2]string) (add [][2]string) {
	value := func(name string) (string, bool) {
		for _, pair := range slices.Backward(all) {
			if pair[0] == name {
				return pair[1], true
			}
		}
		return "", false
	}
	paths := x.set.Paths
	if x.set.Bin != "" {
		paths = append(slices.Clone(paths), [2]string{"PATH", x.set.Bin})
	}
	for _, p := range paths {
		own, ok := value(p[0])
		if !ok && p[0] == "PATH" {
			own = agent.DefaultPath
		}
		add = append(add, [2]string{p[0], strings.TrimSuffix(p[1]+":"+own, ":")})
	}
	for _, p := range x.set.Env {
		if _, ok := value(p[0]); !ok {
			add = append(add, p)
		}
	}
	return add
}
