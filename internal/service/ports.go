package service

import (
	"context"
	"slices"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// OpenPort publishes a port of a stateful sandbox and answers it with its host port. It goes on when ctx ends.
//
// Errors: Invalid, NotFound, NotStateful, Conflict (that guest port is published, a failed sandbox), PortNotAllowed,
// PortInUse, QuotaExceeded, Capacity, ShuttingDown.
func (s *Service) OpenPort(ctx context.Context, namespace, id string, r sandbox.PortRequest, faults sandbox.Faults) (sandbox.Port, error) {
	l, done, err := s.forPorts(namespace, id)
	if err != nil {
		return sandbox.Port{}, err
	}
	defer done()
	if err := faults.Err(sandbox.Invalid); err != nil {
		return sandbox.Port{}, err
	}
	l.turning.Lock()
	defer l.turning.Unlock()
	l.touch()
	ctx = context.WithoutCancel(ctx)
	_, record, err := s.find(namespace, id)
	if err != nil {
		return sandbox.Port{}, err
	}
	if len(record.Ports) >= policy.MaxPorts {
		return sandbox.Port{}, sandbox.Errorf(sandbox.QuotaExceeded, nil, "the sandbox has %d ports, the most that one can have: close one first", policy.MaxPorts)
	}
	port, err := s.runtime.OpenPort(ctx, id, policy.Port(r))
	if err != nil {
		return sandbox.Port{}, err
	}
	_, err = s.change(ctx, l, "", func(r *sandbox.Sandbox) { r.Ports = append(slices.Clone(r.Ports), port) })
	if err == nil {
		return port, nil
	}
	if closed := s.runtime.ClosePort(ctx, id, port.GuestPort, port.Protocol); closed != nil {
		s.log.Error("a port that could not be noted could not be closed", "sandbox_id", id, "error", closed)
	}
	return sandbox.Port{}, sandbox.Errorf(sandbox.Internal, err, "the port could not be noted")
}

// ClosePort closes a published port of a stateful sandbox, with its connections.
//
// Errors: NotFound (the sandbox, or the port), NotStateful, Conflict (a failed sandbox), ShuttingDown.
func (s *Service) ClosePort(ctx context.Context, namespace, id string, guestPort int, protocol string) error {
	l, done, err := s.forPorts(namespace, id)
	if err != nil {
		return err
	}
	defer done()
	l.turning.Lock()
	defer l.turning.Unlock()
	l.touch()
	ctx = context.WithoutCancel(ctx)
	if err := s.runtime.ClosePort(ctx, id, guestPort, protocol); err != nil {
		return err
	}
	_, err = s.change(ctx, l, "", func(r *sandbox.Sandbox) {
		r.Ports = slices.DeleteFunc(slices.Clone(r.Ports), func(p sandbox.Port) bool { return p.GuestPort == guestPort && p.Protocol == protocol })
	})
	if err != nil {
		return sandbox.Errorf(sandbox.Internal, err, "the port is closed until the server's next start, which could not be noted: close it again then")
	}
	return nil
}

// forPorts finds a sandbox whose ports may change.
func (s *Service) forPorts(namespace, id string) (*live, func(), error) {
	l, record, err := s.find(namespace, id)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case record.Mode != sandbox.Stateful:
		return nil, nil, sandbox.Errorf(sandbox.NotStateful, nil, "an ephemeral sandbox has the ports that it was created with; create one with mode stateful to open and close them later")
	case record.Status == sandbox.Failed:
		return nil, nil, usable(record)
	}
	done, err := s.begin()
	return l, done, err
}
