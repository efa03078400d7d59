package runtimepipe

import (
	"context"
	"errors"
	"io"
	"sync"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Serve answers the calls that come over conn with those of r, and returns when conn has ended. The calls under way are
// then cancelled and waited for; r lives on.
func Serve(conn io.ReadWriteCloser, r service.Runtime) error {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{line: newLine(conn), runtime: r, calls: map[uint64]*served{}, gone: ctx.Done()}
	var under sync.WaitGroup
	defer under.Wait()
	defer cancel()
	defer conn.Close()
	for {
		m, err := s.line.receive()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Request != nil {
			c := s.begin(ctx, m.Call)
			under.Go(func() { s.serve(c, *m.Request) })
			continue
		}
		s.tell(m)
	}
}

type server struct {
	line    *line
	runtime service.Runtime
	gone    <-chan struct{} // closed when the stream has ended
	mu      sync.Mutex
	calls   map[uint64]*served
}

// served is one call under way.
type served struct {
	id     uint64
	ctx    context.Context
	cancel context.CancelFunc
	taken  [2]chan bool // by stream: whether more is wanted
	input  chan input   // what it reads, a piece for each time it asks
}

func (s *server) begin(ctx context.Context, id uint64) *served {
	c := &served{id: id, input: make(chan input, 1), taken: [2]chan bool{make(chan bool, 1), make(chan bool, 1)}}
	c.ctx, c.cancel = context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[id] = c
	return c
}

// tell passes on what comes for a call; one that has ended wants nothing.
func (s *server) tell(m message) {
	s.mu.Lock()
	c := s.calls[m.Call]
	s.mu.Unlock()
	switch {
	case c == nil:
	case m.Cancel:
		c.cancel()
	case m.Input != nil:
		select {
		case c.input <- *m.Input:
		default: // it was not asked
		}
	case m.Taken != nil && (m.Taken.Stream == 1 || m.Taken.Stream == 2):
		select {
		case c.taken[m.Taken.Stream-1] <- !m.Taken.Failed:
		default: // it was not asked
		}
	}
}

func (s *server) serve(c *served, q request) {
	a := s.call(c, q)
	c.cancel()
	s.mu.Lock()
	delete(s.calls, c.id)
	s.mu.Unlock()
	if s.line.send(message{Call: c.id, Answer: &a}) != nil {
		s.line.conn.Close() // nobody can be told: the other side must not wait
	}
}

func (s *server) call(c *served, q request) (a answer) {
	one := func(state service.SandboxState, err error) answer {
		return answer{States: []service.SandboxState{state}, Error: plain(err)}
	}
	switch {
	case q.Method == "sync":
		states, err := s.runtime.Sync(c.ctx, q.Known)
		return answer{States: states, Error: plain(err)}
	case q.Method == "create" && q.Sandbox != nil:
		return one(s.runtime.Create(c.ctx, *q.Sandbox))
	case q.Method == "exec" && q.Exec != nil:
		o, err := s.exec(c, q)
		return answer{Outcome: &o, Error: plain(err)}
	case q.Method == "control" && q.Control != nil:
		return answer{Error: plain(s.runtime.Control(c.ctx, q.ID, q.ExecID, *q.Control))}
	case q.Method == "files" && q.Files != nil:
		return answer{Error: plain(s.runtime.Files(c.ctx, q.ID, *q.Files, s.reader(c, q), &sender{s, c, 1}))}
	case q.Method == "processes":
		all, err := s.runtime.Processes(c.ctx, q.ID)
		return answer{Processes: all, Error: plain(err)}
	case q.Method == "signal":
		return answer{Error: plain(s.runtime.Signal(c.ctx, q.ID, q.Pid, q.Signal))}
	case q.Method == "stop":
		return answer{Error: plain(s.runtime.Stop(c.ctx, q.ID))}
	case q.Method == "start":
		return one(s.runtime.Start(c.ctx, q.ID))
	case q.Method == "open port" && q.Port != nil:
		p, err := s.runtime.OpenPort(c.ctx, q.ID, *q.Port)
		return answer{Port: &p, Error: plain(err)}
	case q.Method == "close port" && q.Port != nil:
		return answer{Error: plain(s.runtime.ClosePort(c.ctx, q.ID, q.Port.GuestPort, q.Port.Protocol))}
	case q.Method == "images":
		all, err := s.runtime.Images(c.ctx, q.Namespace, q.Operator)
		return answer{Images: all, Error: plain(err)}
	case q.Method == "watch":
		return answer{Error: plain(s.watch(c))}
	case q.Method == "delete":
		return answer{Error: plain(s.runtime.Delete(c.ctx, q.ID))}
	case q.Method == "inspect":
		return one(s.runtime.Inspect(c.ctx, q.ID))
	case q.Method == "close":
		return answer{Error: plain(s.runtime.Close(c.ctx, q.StopAll))}
	}
	return answer{Error: sandbox.Errorf(sandbox.NotSupported, nil, "the runtime has no call %q: is it of another version?", q.Method)}
}

// exec runs a program, and tells when it starts.
func (s *server) exec(c *served, q request) (service.ExecOutcome, error) {
	started, ended := make(chan struct{}, 1), make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-started:
			_ = s.line.send(message{Call: c.id, Output: &output{}})
		case <-ended:
		}
	}()
	return s.runtime.Exec(c.ctx, q.ID, *q.Exec, service.Streams{
		Stdin: s.reader(c, q), Stdout: &sender{s, c, 1}, Stderr: &sender{s, c, 2}, Started: started,
	})
}

// reader is what a call reads, nil where it has nothing.
func (s *server) reader(c *served, q request) io.Reader {
	if !q.Reads {
		return nil
	}
	return &wanting{s: s, c: c}
}

// wanting asks the other side for each piece.
type wanting struct {
	s    *server
	c    *served
	rest []byte
	err  error
}

// Read implements io.Reader.
func (w *wanting) Read(b []byte) (int, error) {
	if len(w.rest) == 0 && w.err == nil {
		w.next()
	}
	n := copy(b, w.rest)
	if w.rest = w.rest[n:]; len(w.rest) > 0 {
		return n, nil
	}
	return n, w.err
}

func (w *wanting) next() {
	if w.err = w.s.line.send(message{Call: w.c.id, Want: true}); w.err != nil {
		return
	}
	select {
	case in := <-w.c.input:
		w.rest = in.Bytes
		if in.Error != nil {
			w.err = in.Error
		} else if in.End {
			w.err = io.EOF
		}
	case <-w.c.ctx.Done():
		w.err = w.c.ctx.Err()
	}
}

// watch passes events on until the call is cancelled.
func (s *server) watch(c *served) error {
	events := make(chan service.Event)
	ended := make(chan error, 1)
	go func() { ended <- s.runtime.Watch(c.ctx, events) }()
	for {
		select {
		case e := <-events:
			if err := s.line.send(message{Call: c.id, Event: &e}); err != nil {
				c.cancel()
				return <-ended
			}
			select {
			case <-c.taken[0]:
			case <-s.gone:
			}
		case err := <-ended:
			return err
		}
	}
}

var errUnwanted = errors.New("the other side takes no more output")

// sender writes a stream to the other side.
type sender struct {
	s      *server
	c      *served
	stream int
}

func (w *sender) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n := min(len(b), maxPiece)
		if err := w.s.line.send(message{Call: w.c.id, Output: &output{Stream: w.stream, Bytes: b[:n]}}); err != nil {
			return written, err
		}
		if !w.wanted() {
			return written, errUnwanted
		}
		written, b = written+n, b[n:]
	}
	return written, nil
}

// Found implements service.FileSink.
func (w *sender) Found(info sandbox.FileInfo) error {
	if err := w.s.line.send(message{Call: w.c.id, Output: &output{Stream: w.stream, Found: &info}}); err != nil {
		return err
	}
	if !w.wanted() {
		return errUnwanted
	}
	return nil
}

// wanted waits until the piece was taken. The call's cancellation doesn't end that: output so far is still told.
func (w *sender) wanted() bool {
	select {
	case more := <-w.c.taken[w.stream-1]:
		return more
	case <-w.s.gone:
		return false
	}
}
