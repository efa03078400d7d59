package link

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"

	"github.com/hashicorp/yamux"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// Guest is the other side of a link: it has at most one machine.
type Guest struct {
	Engine engine.Engine
	Hello  Hello
	Renew  func(Renewal) error
	// Release lets go of what a mount that is no longer shown was made of, and says whether nothing uses it any more.
	Release  func(source string) bool
	Rehearse func(context.Context, engine.MachineSpec) error
	Died     func() // called when the machine has ended by itself
	Halted   func() // called when it was halted at the daemon's word, after that was answered

	mu        sync.Mutex
	halting   bool
	ahead     engine.Blank // nil: none
	machine   engine.Machine
	network   engine.Network
	execs     map[string]engine.Exec
	calls     map[uint64]context.CancelFunc
	shown     map[string]string // the sources of mounts, by their paths
	listeners map[string]net.Listener
}

// Serve answers the calls of one link until it ends. The execs under way over it end with it.
func (g *Guest) Serve(c io.ReadWriteCloser) error {
	s, err := yamux.Server(c, settings())
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var calls sync.WaitGroup
	defer calls.Wait()
	defer cancel()
	for {
		stream, err := s.AcceptStream()
		if err != nil {
			return err
		}
		calls.Go(func() {
			defer stream.Close()
			g.serve(ctx, stream)
		})
	}
}

// Keep takes the beginning of an ephemeral machine, without a disk, for a start that may come.
func (g *Guest) Keep(b engine.Blank) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ahead = b
}

// Machine is the one that was started, nil before.
func (g *Guest) Machine() engine.Machine {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machine
}

// serve answers one call.
func (g *Guest) serve(ctx context.Context, stream net.Conn) {
	s := newConn(stream, bufio.NewReaderSize(stream, readBuffer))
	var q request
	if err := readJSON(s.r, kindRequest, agent.MaxControl, &q); err != nil {
		return
	}
	call, done := g.begin(ctx, q.ID)
	a, then, err := g.answer(call, q)
	done()
	if err != nil {
		a = answer{Error: failureOf(err)}
	}
	if agent.WriteJSON(stream, kindAnswer, a) != nil && then != nil {
		stream.Close() // then sees to it that nothing stays
	}
	if then != nil {
		then(ctx, s)
	}
}

// begin notes a call that can be cancelled until done.
func (g *Guest) begin(ctx context.Context, id uint64) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls == nil {
		g.calls = map[uint64]context.CancelFunc{}
	}
	g.calls[id] = cancel
	return ctx, func() {
		cancel()
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.calls, id)
	}
}

func (g *Guest) cancel(id uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cancel := g.calls[id]; cancel != nil {
		cancel()
	}
}

// answer does what a request asks for; then, unless it is nil, is what the stream carries after the answer, while the link is there.
func (g *Guest) answer(ctx context.Context, q request) (a answer, then func(context.Context, *conn), err error) {
	switch {
	case q.Cancel != 0:
		g.cancel(q.Cancel)
		return a, nil, nil
	case q.Hello:
		hello := g.Hello
		hello.Started = g.Machine() != nil
		return answer{Hello: &hello}, nil, nil
	case q.Renew != nil:
		return a, nil, g.Renew(*q.Renew)
	case q.Rehearse != nil:
		return a, nil, g.Rehearse(ctx, *q.Rehearse)
	case q.Start != nil:
		return g.start(ctx, *q.Start)
	}
	m := g.Machine()
	if m == nil {
		return a, nil, lost(nil)
	}
	switch {
	case q.Park != nil:
		return g.park(ctx, m, *q.Park)
	case q.Resume != "":
		return g.resume(ctx, m, q.Resume)
	case q.Kill != "":
		if x := g.exec(q.Kill); x != nil {
			err = x.Kill()
		}
	case q.Usage != "":
		if x := g.exec(q.Usage); x != nil {
			u, oom := x.Usage()
			a = answer{Usage: &u, OOM: oom}
		}
	case q.Warm != nil:
		err = m.Warm(ctx, *q.Warm)
	case q.Attach != nil:
		if err = m.Attach(ctx, *q.Attach); err == nil {
			g.mu.Lock()
			g.shown[q.Attach.Path] = q.Attach.Source
			g.mu.Unlock()
		}
	case q.Detach != "":
		if err = m.Detach(ctx, q.Detach); err == nil {
			g.mu.Lock()
			source := g.shown[q.Detach]
			delete(g.shown, q.Detach)
			g.mu.Unlock()
			a.Released = source != "" && g.Release(source)
		}
	case q.Release != "":
		a.Released = g.Release(q.Release)
	case q.Ping:
		err = m.Ping(ctx)
	case q.Call:
		return g.pass(ctx, m)
	case q.Isolation:
		i := m.Isolation()
		a.Isolation = &i
	case q.Halt:
		g.mu.Lock()
		g.halting = true
		g.mu.Unlock()
		return a, func(context.Context, *conn) { g.Halted() }, m.Halt(ctx)
	default:
		return g.net(ctx, m, q)
	}
	return a, nil, err
}

// pass makes the stream a connection to the machine's agent.
func (g *Guest) pass(ctx context.Context, m engine.Machine) (a answer, then func(context.Context, *conn), err error) {
	c, err := m.Call(ctx)
	if err != nil {
		return a, nil, err
	}
	return a, func(_ context.Context, s *conn) { relay(c, s) }, nil
}

// relay hands on what a stream and a connection to the agent say to each other, until the agent ends that; the channel is closed when the
// daemon does so, too.
func relay(c *agent.Conn, s *conn) <-chan struct{} {
	letGo := make(chan struct{})
	go func() {
		defer close(letGo)
		if _, err := io.Copy(c, s.r); err != nil {
			_, _ = io.Copy(io.Discard, s.r) // the agent has refused more, and its reason is on the way: a stream that nobody reads would stand still
		}
		c.Close() // the daemon is done with it
	}()
	_, _ = io.Copy(s.Conn, c.Rest())
	c.Close()
	return letGo
}

func (g *Guest) start(ctx context.Context, spec engine.MachineSpec) (a answer, then func(context.Context, *conn), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.machine != nil {
		return a, nil, sandbox.Errorf(sandbox.Internal, nil, "the guest has a machine already")
	}
	if b := g.ahead; b != nil && !spec.Stateful {
		spec.ID, spec.Blank = b.ID(), b
	} else if b != nil {
		go func() { _ = b.Stop(context.WithoutCancel(ctx)) }()
	}
	g.ahead = nil
	m, err := g.Engine.Start(ctx, spec)
	if err != nil {
		return a, nil, err
	}
	g.machine, g.execs, g.listeners, g.shown = m, map[string]engine.Exec{}, map[string]net.Listener{}, map[string]string{}
	go g.watch(m)
	i := m.Isolation()
	return answer{Isolation: &i}, nil, nil
}

func (g *Guest) watch(m engine.Machine) {
	<-m.Dead()
	g.mu.Lock()
	halting := g.halting
	g.mu.Unlock()
	if !halting {
		g.Died()
	}
}

func (g *Guest) exec(id string) engine.Exec {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.execs[id]
}

func (g *Guest) park(ctx context.Context, m engine.Machine, spec engine.ExecSpec) (a answer, then func(context.Context, *conn), err error) {
	x, err := m.Park(ctx, spec)
	if err != nil {
		return a, nil, err
	}
	done := g.note(spec.ID, x)
	i := x.Isolation()
	return answer{Isolation: &i, Warm: x.Warm()}, func(ctx context.Context, s *conn) {
		defer done()
		(&running{x: x, s: s.Conn, r: s.r}).serve(ctx)
	}, nil
}

// note keeps an exec for Kill and Usage; done closes it.
func (g *Guest) note(id string, x engine.Exec) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.execs[id] = x
	return func() {
		g.mu.Lock()
		delete(g.execs, id)
		g.mu.Unlock()
		x.Close()
	}
}

// resume is a call to the agent that asks for a program that stays; the place is for Kill and Usage, until the daemon lets go of it.
func (g *Guest) resume(ctx context.Context, m engine.Machine, id string) (answer, func(context.Context, *conn), error) {
	x, err := m.Resume(ctx, id)
	if err != nil {
		return answer{}, nil, err
	}
	done := g.note(id, x)
	c, err := m.Call(ctx)
	if err != nil {
		done()
		return answer{}, nil, err
	}
	return answer{}, func(ctx context.Context, s *conn) {
		defer done()
		letGo := relay(c, s)
		s.Close()
		select {
		case <-letGo:
		case <-ctx.Done():
		}
	}, nil
}
