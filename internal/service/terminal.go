package service

import (
	"context"
	"io"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// TerminalRequest says what runs in a terminal; what is left out is a shell, the sandbox's user and directory, and 80 × 24.
type TerminalRequest struct {
	Command    []string
	User       *string
	WorkingDir *string
	Term       string // the client's kind of terminal; "" xterm-256color
	Size       sandbox.TerminalSize
}

// shell becomes the best shell that the image has.
var shell = []string{"sh", "-c", "command -v bash >/dev/null && exec bash -l; exec sh -l"}

// Terminal runs a program in a terminal of a stateful sandbox until it ends, or ctx does: then its session is hung up, as when
// somebody closes a window. What is typed comes from in, what is shown goes to out. begins is told how to change the terminal.
//
// Errors: those of inside and Exec.
func (s *Service) Terminal(ctx context.Context, namespace, id string, r TerminalRequest, in io.Reader, out io.Writer, begins func(control func(sandbox.TerminalControl) error)) (*sandbox.ExecResult, error) {
	l, record, err := s.inside(namespace, id)
	if err != nil {
		return nil, err
	}
	if len(r.Command) == 0 {
		r.Command = shell
	}
	if r.Term == "" {
		r.Term = "xterm-256color"
	}
	p, err := s.policy.Exec(sandbox.ExecRequest{
		Command: r.Command, User: r.User, WorkingDir: r.WorkingDir, Env: [][2]string{{"TERM", r.Term}},
	}, record.Language, record.ResourceLimits, nil)
	if err != nil {
		return nil, err
	}
	p.Limits.TimeoutMS = 0                    // who sits there ends it
	done, err := s.beginExec(namespace, true) // the server's end does not wait for who sits there
	if err != nil {
		return nil, err
	}
	defer done()
	defer l.hold()()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	spec := s.execSpec(p)
	e := s.execs.open(namespace, id, false, spec, p, cancel)
	spec.Terminal, spec.MaxOutputBytes = &r.Size, endless
	defer s.execs.abandon(e)
	begins(func(c sandbox.TerminalControl) error { return s.control(ctx, e, c) })
	outcome, err := s.runtime.Exec(ctx, id, spec, Streams{Stdin: in, Stdout: out, Stderr: e.Stderr, Started: e.begun})
	return s.conclude(e, spec.Language, outcome, err)
}

// MaxTerminal is how many columns or rows a terminal may have.
const MaxTerminal = policy.MaxTerminal

// MayOpenTerminal says whether a sandbox could have a terminal now. Errors: those of inside.
func (s *Service) MayOpenTerminal(namespace, id string) error {
	_, _, err := s.inside(namespace, id)
	return err
}

// endless is more than any terminal shows; its client holds the program up instead.
const endless = 1 << 62

// control changes the terminal of an exec. Errors: Invalid; NotFound, it has ended.
func (s *Service) control(ctx context.Context, e *exec, c sandbox.TerminalControl) error {
	var faults sandbox.Faults
	x := TerminalControl{}
	if c.Resize != nil {
		x.Size = *c.Resize
		policy.CheckTerminalSize("resize", x.Size, &faults)
	}
	if c.Signal != nil {
		x.Signal = policy.Signal(c.Signal, &faults)
	}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	return s.runtime.Control(ctx, e.SandboxID, e.ID, x)
}
