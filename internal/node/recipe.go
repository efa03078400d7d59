package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"reflect"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/service"
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
		WorkingDir: b.spec.WorkingDir, Programs: languages[b.spec.Language].programs, Env: environment(b, nil),
		Mounts: append(n.mounts(b), x.mounts...), Egress: b.spec.Network.Egress, Resolver: resolver(b.spec.Network),
	}}
	r.spec.Limits.TimeoutMS = 0 // an exec's
	if x.layers != nil {
		r.spec.Layers = x.layers
	}
	if !x.fresh() {
		r.warm = n.ahead(b)
	}
	return r, nil
}

// ahead is the interpreter that runs in each machine made for the sandbox, but for an exec's that can't use it; nil: none does.
func (n *Node) ahead(b *box) *agent.Warm {
	if n.pool == nil || len(n.mounts(b)) > 0 {
		return nil
	}
	return warmFor(b)
}

// plain says that the sandbox's machines have an interpreter running which can't run this program. The program gets a machine
// in which none was ever started: an interpreter leaves traces, so a machine isn't taken back from one.
func (n *Node) plain(b *box, e service.ExecSpec) bool {
	ahead := n.ahead(b)
	return ahead != nil && (len(e.Deps) > 0 || !reflect.DeepEqual(ahead, warmWith(b, e)))
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
