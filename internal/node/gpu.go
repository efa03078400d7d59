package node

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

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
	_, number, _ := strings.Cut(*b.spec.Limits.GPU, ":")
	if count, err := strconv.Atoi(number); err != nil || len(devices) != count {
		return sandbox.Errorf(sandbox.NotSupported, nil, "the sandbox has %d of its GPUs (%s): delete it and create it anew", len(devices), *b.spec.Limits.GPU)
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
	if !n.machinesEnded(b) {
		return fmt.Errorf("a machine of the sandbox, which has GPUs, does not end")
	}
	return n.gpus.Free(b.spec.ID)
}

// machinesEnded waits for those of an ephemeral sandbox that end in the background, since they have its devices and its
// disk; false where one takes longer than endTime.
func (n *Node) machinesEnded(b *box) bool {
	for end := time.Now().Add(endTime); ; time.Sleep(5 * time.Millisecond) {
		if used, err := n.withMachines(); err == nil && !used[b.spec.ID] {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// endTime is how long what was written to a disk may take to reach the host's.
const endTime = 20 * time.Second

// withMachines are the sandboxes that have machines on this host, half removed ones included.
func (n *Node) withMachines() (map[string]bool, error) {
	handles, err := n.engine.List(context.Background())
	used := map[string]bool{}
	for _, h := range handles {
		used[h.SandboxID] = true
	}
	return used, err
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
	used, err := n.withMachines()
	if err != nil {
		n.log.Error("the machines of this host could not be listed", "error", err)
		return
	}
	for _, id := range holders {
		if n.owned(id) || used[id] {
			continue
		}
		if err := n.gpus.Free(id); err != nil {
			n.log.Error("the GPUs of a sandbox that is gone could not be freed", "sandbox", id, "error", err)
		}
	}
}
