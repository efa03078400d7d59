package service

import (
	"context"
	"io"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// tooLarge is for a file of which more than its sandbox holds was announced.
func (s *Service) tooLarge(r sandbox.Sandbox, size int64) error {
	most := int64(r.ResourceLimits.DiskMB) << 20
	if r.DiskSizeGB != nil {
		most = max(most, int64(*r.DiskSizeGB)<<30)
	}
	if size <= most {
		return nil
	}
	return sandbox.Errorf(sandbox.FileTooLarge, nil, "the sandbox's disk holds %d MiB: raise resource_limits.disk_mb", most>>20)
}

// Files does one call on the files of a stateful sandbox, with its user's rights. size is the body's, -1 where nobody said.
//
// Errors: NotFound, Invalid (a path), those of Runtime.Files.
func (s *Service) Files(ctx context.Context, namespace, id string, op FileOp, size int64, body io.Reader, out FileSink) error {
	l, record, err := s.inside(namespace, id)
	if err != nil {
		return err
	}
	var faults sandbox.Faults
	policy.CheckFilePath(op.Path, &faults)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	if err := s.tooLarge(record, size); err != nil {
		return err
	}
	done, err := s.begin()
	if err != nil {
		return err
	}
	defer done()
	defer l.hold()()
	err = s.runtime.Files(ctx, id, op, body, out)
	if sandbox.CodeOf(err) == sandbox.Lost {
		s.noteLoss(context.WithoutCancel(ctx), id)
	}
	return err
}

// inside finds a stateful sandbox that runs, for what is done in its machine. Errors: NotFound, NotStateful, SandboxStopped, Lost, Conflict.
func (s *Service) inside(namespace, id string) (*live, sandbox.Sandbox, error) {
	l, record, err := s.find(namespace, id)
	if err != nil {
		return nil, record, err
	}
	if record.Mode != sandbox.Stateful {
		return nil, record, sandbox.Errorf(sandbox.NotStateful, nil, "only a stateful sandbox can do that: create one with mode stateful; with an ephemeral one, files and collect of exec put files in and out")
	}
	return l, record, usable(record)
}

// Processes are those that run in a stateful sandbox. Errors: those of inside and of Runtime.Processes.
func (s *Service) Processes(ctx context.Context, namespace, id string) ([]sandbox.Process, error) {
	l, _, err := s.inside(namespace, id)
	if err != nil {
		return nil, err
	}
	l.touch()
	all, err := s.runtime.Processes(ctx, id)
	if all == nil {
		all = []sandbox.Process{}
	}
	return all, err
}

// Signal sends a signal to a process of a stateful sandbox, by its number inside. Errors: those of Processes; Invalid; NotFound,
// there is no such process.
func (s *Service) Signal(ctx context.Context, namespace, id string, pid int, r sandbox.SignalRequest, faults sandbox.Faults) error {
	l, _, err := s.inside(namespace, id)
	if err != nil {
		return err
	}
	number := policy.Signal(r.Signal, &faults)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	l.touch()
	return s.runtime.Signal(ctx, id, pid, number)
}
