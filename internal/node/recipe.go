package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// recipe is all that a machine is made by, but for whose it is: machines of one recipe may stand for one another.
type recipe struct {
	spec    engine.MachineSpec // without ID and SandboxID
	network sandbox.Network
	warm    *agent.Warm // the interpreter to start ahead; nil: none
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
	if n.pool != nil && r.poolable() {
		r.warm = x.warm
	}
	return r, nil
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
	r.warm = nil
	return r
}

// poolable: nothing of one sandbox alone is in it.
func (r recipe) poolable() bool { return !r.spec.Stateful && !r.spec.Again && len(r.spec.Mounts) == 0 }

// key is the same for recipes that make the same machine.
func (r recipe) key() string {
	b, err := json.Marshal(struct {
		Spec    engine.MachineSpec
		Network sandbox.Network
		Warm    *agent.Warm
	}{r.spec, r.network, r.warm})
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(b) // environments hold secrets: they are not kept as keys
	return string(sum[:])
}
