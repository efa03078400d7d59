package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/sandbox"
)

// recipe is all that a machine is made by, but for whose it is: machines of one recipe may stand for one another.
type recipe struct {
	spec    engine.MachineSpec // without ID and SandboxID
	network sandbox.Network
	warm    *agent.Warm // the interpreter to start ahead; nil: none
	private string      // the namespace whose words warm has, "" where they are everyone's
}

// recipe says how a machine of the sandbox is made that has what the exec needs.
func (n *Node) recipe(ctx context.Context, b *box, limits sandbox.Limits, x needs) (recipe, error) {
	img, err := n.imageOf(ctx, b)
	if err != nil {
		return recipe{}, err
	}
	if b.spec.Limits.GPU != nil && len(b.devices) == 0 { // not found after a restart: perhaps they are there now
		if err := n.findGPUs(b); err != nil {
			return recipe{}, err
		}
	}
	r := recipe{network: b.spec.Network, spec: engine.MachineSpec{
		Stateful: b.spec.Mode == sandbox.Stateful, Layers: img.Layers, Limits: limits, Security: b.spec.Security,
		WorkingDir: b.spec.WorkingDir, Programs: languages[b.spec.Language].programs, Env: pathIn(environment(b, nil)),
		Mounts: append(n.mounts(b), x.mounts...), Egress: b.spec.Network.Egress, Resolver: resolver(b.spec.Network),
	}}
	r.spec.Limits.TimeoutMS = 0 // an exec's
	if x.layers != nil {
		r.spec.Layers = x.layers
	}
	if x.warm != nil && n.mayRunAhead(b, r, *x.warm) {
		r.warm = x.warm
		if len(x.warm.Args) > 0 || len(x.warm.Env) > len(img.Config.Env) { // else others could ask whether someone runs with these
			r.private = b.spec.Namespace
		}
	}
	return r, nil
}

// An interpreter is not started ahead with more words than wordsMost, which the pool would keep, nor with limits under which it may
// not come as far as its program.
const (
	wordsMost = 16 << 10 // bytes
	leastPids = 32
	leastCPU  = 0.25
)

// mayRunAhead: before its program comes an interpreter runs without a deadline and in no exec's quota, so it must be one of the images
// that the operator named: any other's python3 may do as it likes.
func (n *Node) mayRunAhead(b *box, r recipe, w agent.Warm) bool {
	words := 0
	for _, arg := range w.Args {
		words += len(arg)
	}
	for _, pair := range w.Env {
		words += len(pair[0]) + len(pair[1])
	}
	l := r.spec.Limits
	return n.pool != nil && r.poolable() && n.defaults[image.Canonical(b.spec.Image)] && words <= wordsMost && l.Pids >= leastPids && l.CPUCores >= leastCPU
}

// pathIn is by what the machine's programs are found: all else of an environment is an exec's.
func pathIn(env [][2]string) (path [][2]string) {
	for _, pair := range env {
		if pair[0] == "PATH" {
			path = [][2]string{pair}
		}
	}
	return path
}

// plain makes the same machine without a running interpreter.
func (r recipe) plain() recipe {
	r.warm, r.private = nil, ""
	return r
}

// poolable: nothing of one sandbox alone is in it.
func (r recipe) poolable() bool { return !r.spec.Stateful && len(r.spec.Mounts) == 0 }

// key is the same for recipes that make the same machine.
func (r recipe) key() string {
	b, err := json.Marshal(struct {
		Spec    engine.MachineSpec
		Network sandbox.Network
		Warm    *agent.Warm
		Private string
	}{r.spec, r.network, r.warm, r.private})
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(b) // environments hold secrets: they are not kept as keys
	return string(sum[:])
}
