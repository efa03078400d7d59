package link

import (
	"context"
	"io"
	"net"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// net answers the calls on the inside of the machine's network.
func (g *Guest) net(ctx context.Context, m engine.Machine, q request) (a answer, then func(context.Context, *conn), err error) {
	n, err := g.inside(m)
	if err != nil {
		return a, nil, err
	}
	switch {
	case q.Dial != nil:
		c, err := n.Dial(ctx, q.Dial.Network, q.Dial.To)
		if err != nil {
			return a, nil, err
		}
		return a, func(_ context.Context, s *conn) { join(s, c) }, nil
	case q.Link != nil:
		l, err := n.Link(ctx, *q.Link)
		if err != nil {
			return a, nil, err
		}
		return a, func(_ context.Context, s *conn) { join(s, l) }, nil
	case q.Listen != "":
		l, err := n.Listen(ctx, q.Listen)
		if err != nil {
			return a, nil, err
		}
		g.listen(q.Listen, l)
		return a, func(_ context.Context, s *conn) {
			_, _ = s.Read(make([]byte, 1)) // until the daemon lets go of it
			g.listen(q.Listen, nil)
			l.Close()
		}, nil
	case q.Accept != "":
		g.mu.Lock()
		l := g.listeners[q.Accept]
		g.mu.Unlock()
		if l == nil {
			return a, nil, sandbox.Errorf(sandbox.Invalid, nil, "nobody listens at %s", q.Accept)
		}
		c, err := l.Accept()
		if err != nil {
			return a, nil, err
		}
		return a, func(_ context.Context, s *conn) { join(s, c) }, nil
	}
	return a, nil, sandbox.Errorf(sandbox.NotSupported, nil, "this guest does not know the call")
}

func (g *Guest) inside(m engine.Machine) (engine.Network, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.network == nil {
		n, err := m.Network()
		if err != nil {
			return nil, err
		}
		g.network = n
	}
	return g.network, nil
}

// listen notes the listener of an address; nil: there is none any more.
func (g *Guest) listen(address string, l net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l == nil {
		delete(g.listeners, address)
	} else {
		g.listeners[address] = l
	}
}

// join carries bytes or packets both ways until the daemon's side ends, or both directions have.
func join(s *conn, c io.ReadWriteCloser) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_ = carry(s, c)
		_ = s.CloseWrite()
	}()
	half, can := c.(interface{ CloseWrite() error })
	if err := carry(c, s); err == io.EOF && can { // an end that was told, and not the stream's: more may be read
		_ = half.CloseWrite()
		<-answered
	}
	c.Close()
	s.Close()
	<-answered
}

// carry copies pieces as they come; io.EOF where the source said that it has no more.
func carry(to io.Writer, from io.Reader) error {
	for buf := make([]byte, agent.MaxData); ; {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}
