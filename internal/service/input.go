package service

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"outpost.run/outpost/sandbox"
)

// input is the standard input of a program to which more comes while it runs.
type input struct {
	first []byte // what the request had
	in    *io.PipeReader
	out   *io.PipeWriter
	ended chan struct{} // closed when the program has
	turn  chan struct{} // holds one: who writes has it
	done  sync.Once
}

func newInput(first []byte) *input {
	in, out := io.Pipe()
	return &input{first: first, in: in, out: out, ended: make(chan struct{}), turn: make(chan struct{}, 1)}
}

// reader is what the program reads; nil where x is.
func (x *input) reader() io.Reader {
	if x == nil {
		return nil
	}
	return io.MultiReader(bytes.NewReader(x.first), x.in)
}

// end is the program's, or the server's.
func (x *input) end() {
	if x == nil {
		return
	}
	x.done.Do(func() {
		x.in.CloseWithError(errProgramEnded)
		x.first = nil // its record stays for a while
		close(x.ended)
	})
}

var errProgramEnded = errors.New("the program ended")

// Input is what a client has for a program that runs.
type Input struct {
	Body io.Reader
	Cut  func() // ends a Read of Body that waits
	More bool   // Body's end is not the input's
}

// FeedExec hands input on to a program as it comes and as the program takes it, until it ends or the program does. Where it breaks off
// the program's input stays open.
//
// Errors: NotFound; Conflict, no more can come, or another call has its turn; AlreadyFinished; ShuttingDown; those of Body.
func (s *Service) FeedExec(namespace, sandboxID, id string, from Input) (sandbox.StdinTaken, error) {
	var taken sandbox.StdinTaken
	e, err := s.findExec(namespace, sandboxID, id)
	if err != nil {
		return taken, err
	}
	x := e.input
	if x == nil {
		return taken, sandbox.Errorf(sandbox.Conflict, nil, "the exec's standard input is not open: it was started without stdin_open, or its input ended when the server was stopped")
	}
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	default:
		return taken, sandbox.Errorf(sandbox.Conflict, nil, "another call gives input to this exec; wait for its end")
	}
	select {
	case <-x.ended: // nothing is cut, so that the client reads the answer
		return taken, sandbox.Errorf(sandbox.AlreadyFinished, nil, "the program has ended")
	default:
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-x.ended:
			from.Cut()
		case <-over:
		}
	}()
	taken.Bytes, err = io.Copy(x.out, from.Body)
	select {
	case <-x.ended:
		if s.Draining() {
			return taken, sandbox.Errorf(sandbox.ShuttingDown, nil, "the server is stopping, and the program's input ends with it; it took %d bytes of this", taken.Bytes)
		}
		return taken, sandbox.Errorf(sandbox.AlreadyFinished, nil, "the program ended; it took %d bytes of this input", taken.Bytes)
	default:
	}
	switch {
	case errors.Is(err, io.ErrClosedPipe):
		return taken, sandbox.Errorf(sandbox.Conflict, nil, "the exec's standard input has ended: an earlier call was its last")
	case err != nil:
		return taken, sandbox.Errorf(sandbox.MalformedJSON, err, "the body ended early; the program has %d bytes of it, and its input is still open", taken.Bytes)
	}
	if !from.More {
		x.out.Close()
	}
	return taken, nil
}
