package node

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/deps"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// ServeDeps lets execs have dependencies. It is called before Sync; o's machines are the node's.
func (n *Node) ServeDeps(o deps.Options) (err error) {
	o.Machines, o.Images, o.Log = depMachines{n}, n.images, n.log
	n.installer, err = deps.New(o)
	return err
}

// depMachines are the machines of installations: the node's, without a sandbox. Close waits until they are gone.
type depMachines struct{ n *Node }

func (d depMachines) Start(ctx context.Context, spec engine.MachineSpec) (engine.Machine, error) {
	done, err := d.n.begin()
	if err != nil {
		return nil, err
	}
	id, err := d.n.own()
	if err != nil {
		done()
		return nil, err
	}
	spec.ID = id
	release := d.n.use(image.Image{Layers: spec.Layers})
	limited, cancel := d.n.bounded(ctx, startTime)
	defer cancel()
	m, err := d.n.engine.Start(limited, spec)
	if err != nil {
		release()
		d.n.disown(id)
		done()
		return nil, err
	}
	return depMachine{m, func() { release(); done() }}, nil
}

func (d depMachines) End(m engine.Machine) {
	go func() {
		d.n.endNow(m)
		m.(depMachine).done()
	}()
}

type depMachine struct {
	engine.Machine
	done func()
}

// needs are what an exec's machine must have beside its sandbox's.
type needs struct {
	set      deps.Set
	debian   []string       // Debian packages, as they were asked for
	layers   []string       // that have them: instead of the image's; nil for those
	mounts   []engine.Mount // that must be there from the start
	warm     *agent.Warm    // the interpreter that may be running already; nil: none
	resolved []string
	took     time.Duration
	release  func() // lets its layers go
}

// fresh says that no machine of an ephemeral sandbox that is there already will do.
func (x needs) fresh() bool { return x.layers != nil || x.mounts != nil }

// needsIn is needsOf as a part of an exec that has some.
func (n *Node) needsIn(ctx context.Context, b *box, e service.ExecSpec) (needs, error) {
	if len(e.Deps) == 0 {
		return n.needsOf(ctx, b, e)
	}
	ctx, part := phase.Begin(ctx, "deps")
	x, err := n.needsOf(ctx, b, e)
	part.End(err)
	return x, err
}

// needsOf installs an exec's dependencies, or finds them installed; without an error, release must be called in the end.
func (n *Node) needsOf(ctx context.Context, b *box, e service.ExecSpec) (needs, error) {
	if len(e.Deps) == 0 {
		return needs{release: func() {}, warm: warmWith(b, e)}, nil
	}
	if n.installer == nil {
		return needs{}, sandbox.Errorf(sandbox.NotSupported, nil, "this server installs no dependencies; leave deps out")
	}
	began := time.Now()
	ctx, cancel := n.whileIn(ctx, b)
	defer cancel()
	img, err := n.imageOf(ctx, b)
	if err != nil {
		return needs{}, err
	}
	language := languageOf(b, e)
	var x needs
	var others []string
	if x.debian, others = deps.Split(e.Deps); len(x.debian) > 0 {
		if img, x.resolved, err = n.installer.Debian(ctx, b.spec.Namespace, img, x.debian); err != nil {
			return x, err
		}
		x.layers = img.Layers
	}
	if len(others) > 0 {
		if x.set, err = n.installer.Install(ctx, deps.Request{Namespace: b.spec.Namespace, Language: language, Image: img, Deps: others, MicroVM: b.spec.Security.JailerEnabled}); err != nil {
			return x, err
		}
		if b.spec.Mode == sandbox.Ephemeral && (b.spec.Security.Preset == sandbox.Maximum || b.spec.Security.JailerEnabled) {
			x.mounts = []engine.Mount{x.mount(x.set.At)} // later its root can't be written, and has no place for it; a guest has few spare drives
		}
	}
	x.resolved = append(x.resolved, x.set.Resolved...)
	x.release = n.use(image.Image{Layers: append(slices.Clone(x.layers), x.set.Layer)})
	x.took = time.Since(began)
	return x, nil
}

// whileIn ends with ctx, with the sandbox and with Close.
func (n *Node) whileIn(ctx context.Context, b *box) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(n.ctx, cancel)
	go func() {
		select {
		case <-b.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { stop(); cancel() }
}

func (x needs) mount(at string) engine.Mount {
	return engine.Mount{Kind: engine.LayerMount, Source: x.set.Layer, Path: at}
}

// supply gives a machine what the exec needs: an ephemeral one sees the layer, a stateful one gets it for good.
func (n *Node) supply(ctx context.Context, b *box, m engine.Machine, x *needs) (err error) {
	if x.set.Layer == "" && len(x.layers) == 0 {
		return nil
	}
	began := time.Now()
	_, part := phase.Begin(ctx, "attach")
	defer func() {
		x.took += time.Since(began)
		part.End(err)
	}()
	limited, cancel := n.bounded(ctx, agentTime)
	defer cancel()
	if b.spec.Mode == sandbox.Ephemeral {
		if x.mounts != nil || x.set.Layer == "" {
			return nil
		}
		err = m.Attach(limited, x.mount(x.set.At))
		if _, gone := os.Stat(x.set.Layer); err != nil && gone != nil {
			e := sandbox.Errorf(sandbox.Capacity, err, "what was installed had to go from the server's full store meanwhile; try again")
			e.RetryAfterSecs = 1
			return e
		}
		return err
	}
	return n.settle(ctx, b, m, x)
}

// settled remembers what was installed into a stateful sandbox.
type settled struct {
	turn chan struct{} // of one place
	keys map[string]bool
}

const (
	settleAt   = "/run/deps"
	settleTime = 5 * time.Minute
)

// settle copies a layer onto a stateful sandbox's own disk, by programs of its own and within its limits.
func (n *Node) settle(ctx context.Context, b *box, m engine.Machine, x *needs) error {
	if b.spec.Security.Preset == sandbox.Maximum {
		return sandbox.Errorf(sandbox.NotSupported, nil, "dependencies can't be installed for good where preset maximum keeps the root read-only: "+
			"use an ephemeral sandbox, or another preset")
	}
	ctx, cancel := n.whileIn(ctx, b)
	defer cancel()
	select {
	case b.settled.turn <- struct{}{}:
		defer func() { <-b.settled.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel = context.WithTimeout(ctx, settleTime)
	defer cancel()
	if len(x.layers) > 0 {
		own, err := n.imageOf(ctx, b)
		if err != nil {
			return err
		}
		for _, layer := range x.layers {
			if !slices.Contains(own.Layers, layer) {
				if err := n.copyIn(ctx, b, m, layer, layer, deps.SettleDebian(settleAt)); err != nil {
					return err
				}
			}
		}
	}
	if x.set.Layer == "" {
		return nil
	}
	return n.copyIn(ctx, b, m, x.set.Key, x.set.Layer, x.set.Settle(settleAt))
}

// copyIn shows a layer to the machine's root while that copies it.
func (n *Node) copyIn(ctx context.Context, b *box, m engine.Machine, key, layer string, words []string) error {
	if b.settled.keys[key] {
		return nil
	}
	if err := m.Attach(ctx, engine.Mount{Kind: engine.LayerMount, Source: layer, Path: settleAt}); err != nil {
		return err
	}
	err := n.runAsRoot(ctx, b, m, words)
	if gone := m.Detach(context.WithoutCancel(ctx), settleAt); err == nil {
		err = gone
	}
	if err == nil {
		b.settled.keys[key] = true
	}
	return err
}

// runAsRoot runs words of the shell as the machine's root, which has no power that the preset does not give it.
func (n *Node) runAsRoot(ctx context.Context, b *box, m engine.Machine, words []string) error {
	place, err := m.Park(ctx, engine.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), User: "0", Limits: b.spec.Limits})
	if err != nil {
		return err
	}
	defer place.Close()
	defer context.AfterFunc(ctx, func() { _ = place.Kill() })()
	var said bytes.Buffer
	exit, _, err := place.Run(agent.Run{Argv: words, Dir: "/", MaxOutput: 8 << 10},
		agent.Feed{Stdout: io.Discard, Stderr: &said, Started: func() {}, Exited: func(agent.Exit) {}})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case strings.Contains(said.String(), "No space left on device") || strings.Contains(said.String(), "Disk quota exceeded"):
		return sandbox.Errorf(sandbox.DiskFull, nil, "the dependencies do not fit on the sandbox's disk: raise resource_limits.disk_mb")
	case exit.Code != 0:
		return sandbox.Errorf(sandbox.DepsFailed, nil, "the dependencies could not be copied into the sandbox: %s", deps.LastLines(said.String()))
	}
	return nil
}

// environment is what the exec's environment must say for its dependencies to be found, when all says what it says
// otherwise.
func (x needs) environment(b *box, all [][2]string) (add [][2]string) {
	value := func(name string) (string, bool) {
		for _, pair := range slices.Backward(all) {
			if pair[0] == name {
				return pair[1], true
			}
		}
		return "", false
	}
	if b.spec.Mode == sandbox.Stateful {
		return nil // it lies where everything looks
	}
	paths := x.set.Paths
	if x.set.Bin != "" {
		paths = append(slices.Clone(paths), [2]string{"PATH", x.set.At + "/" + x.set.Bin})
	}
	for _, p := range paths {
		own, ok := value(p[0])
		if !ok && p[0] == "PATH" {
			own = agent.DefaultPath
		}
		add = append(add, [2]string{p[0], strings.TrimSuffix(p[1]+":"+own, ":")})
	}
	return add
}
