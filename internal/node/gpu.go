package node

import (
	"context"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// takeGPUs gives a new sandbox the devices that it asks for.
func (n *Node) takeGPUs(_ context.Context, b *box) error {
	asked := b.spec.Limits.GPU
	switch {
	case asked == nil:
		return nil
	case n.gpus == nil:
		return sandbox.Errorf(sandbox.GPUUnavailable, nil, "this server has no GPUs; leave resource_limits.gpu out")
	}
	if err := n.gpus.Take(b.spec.ID, *asked); err != nil {
		return err
	}
	return n.findGPUs(b)
}

// findGPUs reads what the machines of a sandbox need for its devices.
func (n *Node) findGPUs(b *box) error {
	if b.spec.Limits.GPU == nil || n.gpus == nil {
		return nil
	}
	devices, err := n.gpus.Devices(b.spec.ID)
	if err != nil {
		return sandbox.Errorf(sandbox.NotSupported, err, "a GPU of the sandbox can't be used any more; the operator's log says why")
	}
	b.mu.Lock()
	b.devices = devices
	b.mu.Unlock()
	return nil
}

func (n *Node) freeGPUs(b *box) error {
	if b.spec.Limits.GPU == nil || n.gpus == nil {
		return nil
	}
	return n.gpus.Free(b.spec.ID)
}

func (b *box) deviceMounts() (all []engine.Mount) {
	for _, d := range b.devices {
		for _, x := range d.Nodes {
			all = append(all, engine.Mount{Kind: engine.DeviceMount, Source: x.Host, Path: x.Path})
		}
		for _, x := range d.Files {
			all = append(all, engine.Mount{Kind: engine.HostMount, Source: x.Host, Path: x.Path})
		}
		for _, x := range d.Links {
			all = append(all, engine.Mount{Kind: engine.LinkMount, Source: x.Target, Path: x.Path})
		}
	}
	return all
}

func (b *box) deviceEnv() (all [][2]string) {
	for _, d := range b.devices {
		all = append(all, d.Env...)
	}
	return all
}

// sweepGPUs frees the devices of sandboxes that are not there.
func (n *Node) sweepGPUs() {
	if n.gpus == nil {
		return
	}
	holders, err := n.gpus.Holders()
	if err != nil {
		n.log.Error("the GPUs in use could not be listed", "error", err)
		return
	}
	for _, id := range holders {
		if n.owned(id) {
			continue
		}
		if err := n.gpus.Free(id); err != nil {
			n.log.Error("the GPUs of a sandbox that is gone could not be freed", "sandbox", id, "error", err)
		}
	}
}
