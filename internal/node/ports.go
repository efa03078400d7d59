package node

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// OpenPort implements service.Runtime.
func (n *Node) OpenPort(_ context.Context, _ string, _ sandbox.Port) (sandbox.Port, error) {
	return sandbox.Port{}, sandbox.Errorf(sandbox.NotSupported, nil, "ports are not supported by this server yet")
}

// ClosePort implements service.Runtime.
func (n *Node) ClosePort(_ context.Context, _ string, _ int, _ string) error {
	return sandbox.Errorf(sandbox.NotSupported, nil, "ports are not supported by this server yet")
}

// publish opens the ports that a new sandbox asks for.
func (n *Node) publish(_ context.Context, _ *box) error { return nil }

// unpublish closes the ports of a sandbox that goes.
func (n *Node) unpublish(_ *box) {}
