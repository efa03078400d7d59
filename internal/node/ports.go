package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/sandbox"
)

// publish opens the ports that a new sandbox asks for.
//
// Errors: PortNotAllowed, PortInUse, QuotaExceeded, Capacity.
func (n *Node) publish(_ context.Context, b *box) error {
	for i, port := range b.spec.Ports {
		opened, err := n.open(b, port)
		if err != nil {
			n.unpublish(b)
			return ofField(err, fmt.Sprintf("ports[%d].host_port", i))
		}
		b.published = append(b.published, opened)
	}
	b.ports = b.assigned()
	return nil
}

func (n *Node) open(b *box, port sandbox.Port) (*network.Published, error) {
	return n.net.Publish(b.spec.Namespace, port, func() engine.Network { return n.answering(b) })
}

func (n *Node) reopen(b *box, port sandbox.Port) (*network.Published, error) {
	return n.net.Republish(b.spec.Namespace, port, func() engine.Network { return n.answering(b) })
}

// answering is the inside of the machine that answers at a sandbox's ports; nil for none.
func (n *Node) answering(b *box) engine.Network {
	b.mu.Lock()
	m := b.answers
	if b.spec.Mode == sandbox.Stateful {
		m = b.machine
	}
	b.mu.Unlock()
	if m == nil {
		return nil
	}
	return n.insideOf(m)
}

// answer lets an ephemeral sandbox's ports lead to the machine of one exec; done ends that.
func (b *box) answer(m engine.Machine) (done func()) {
	if b.spec.Mode == sandbox.Stateful || len(b.spec.Ports) == 0 {
		return func() {}
	}
	set := func(m engine.Machine) []*network.Published {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.answers = m
		return slices.Clone(b.published)
	}
	set(m)
	return func() {
		for _, p := range set(nil) {
			p.Reset()
		}
	}
}

// ofField says which field of the request an error of one port belongs to.
func ofField(err error, field string) error {
	e, is := errors.AsType[*sandbox.Error](err)
	if !is || e.Code != sandbox.PortNotAllowed && e.Code != sandbox.PortInUse {
		return err
	}
	named := *e
	named.Details = []sandbox.Detail{{Field: field, Reason: e.Message}}
	return &named
}

func (b *box) assigned() []sandbox.Port {
	list := make([]sandbox.Port, len(b.published))
	for i, p := range b.published {
		list[i] = p.Port
	}
	return list
}

// republish opens the ports that a sandbox had before a restart. One that somebody else has taken meanwhile is tried
// again with every sweep.
func (n *Node) republish(b *box) {
	b.change.Lock()
	defer b.change.Unlock()
	for _, port := range b.portsNow() {
		b.mu.Lock()
		have := b.gone || slices.ContainsFunc(b.published, func(p *network.Published) bool { return same(p.Port, port.GuestPort, port.Protocol) })
		b.mu.Unlock()
		if have {
			continue
		}
		opened, err := n.reopen(b, port)
		if err != nil {
			n.log.Error("a published port can't be opened again; it is tried every minute", "sandbox", b.spec.ID, "host_port", port.HostPort, "protocol", port.Protocol, "error", err)
			continue
		}
		b.mu.Lock()
		b.published = append(b.published, opened)
		b.mu.Unlock()
	}
}

// mend tries again what could not be had after a restart.
func (n *Node) mend() {
	n.mu.Lock()
	boxes := make([]*box, 0, len(n.boxes))
	for _, b := range n.boxes {
		boxes = append(boxes, b)
	}
	n.mu.Unlock()
	for _, b := range boxes {
		n.rewire(b)
		n.republish(b)
	}
}

// unpublish closes the ports of a sandbox that goes.
func (n *Node) unpublish(b *box) {
	b.mu.Lock()
	published := b.published
	b.published = nil
	b.mu.Unlock()
	for _, p := range published {
		p.Close()
	}
}

func same(p sandbox.Port, guestPort int, protocol string) bool {
	return p.GuestPort == guestPort && p.Protocol == protocol
}

// OpenPort implements service.Runtime.
func (n *Node) OpenPort(_ context.Context, id string, port sandbox.Port) (sandbox.Port, error) {
	b, done, err := n.stateful(id)
	if err != nil {
		return sandbox.Port{}, err
	}
	defer done()
	b.mu.Lock()
	gone := b.gone
	have := slices.ContainsFunc(b.ports, func(p sandbox.Port) bool { return same(p, port.GuestPort, port.Protocol) })
	b.mu.Unlock()
	switch {
	case gone:
		return sandbox.Port{}, notFound()
	case have:
		return sandbox.Port{}, sandbox.Errorf(sandbox.Conflict, nil, "%s port %d is published already: close it first to have it at another host port", port.Protocol, port.GuestPort)
	}
	opened, err := n.open(b, port)
	if err != nil {
		return sandbox.Port{}, ofField(err, "host_port")
	}
	b.mu.Lock()
	b.published = append(b.published, opened)
	b.ports = append(slices.Clone(b.ports), opened.Port)
	b.mu.Unlock()
	return opened.Port, nil
}

// ClosePort implements service.Runtime.
func (n *Node) ClosePort(_ context.Context, id string, guestPort int, protocol string) error {
	b, done, err := n.stateful(id)
	if err != nil {
		return err
	}
	defer done()
	b.mu.Lock()
	had := len(b.ports)
	b.ports = slices.DeleteFunc(slices.Clone(b.ports), func(p sandbox.Port) bool { return same(p, guestPort, protocol) })
	var closing *network.Published
	b.published = slices.DeleteFunc(slices.Clone(b.published), func(p *network.Published) bool {
		if same(p.Port, guestPort, protocol) {
			closing = p
			return true
		}
		return false
	})
	found := len(b.ports) < had
	b.mu.Unlock()
	if !found {
		return sandbox.Errorf(sandbox.NotFound, nil, "%s port %d is not published", protocol, guestPort)
	}
	if closing != nil {
		closing.Close()
	}
	return nil
}
