package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"outpost.run/outpost/internal/engine"
)

// portSession is what one client of a published udp port has inside: a socket of its own, by which answers find back.
type portSession struct {
	pub    *Published
	client netip.AddrPort
	target engine.Network // of the machine that it was begun for
	last   atomic.Int64
	alarm  *time.Timer
	ending sync.Once

	mu      sync.Mutex
	inside  net.Conn
	six     bool   // at the IPv6 loopback
	settled bool   // something has answered
	pending []byte // the last datagram, to be sent again by IPv6 if nobody listens on IPv4
	ended   bool
}

// receive hands what clients send to their sessions.
func (p *Published) receive() {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := p.socket.ReadFromUDPAddrPort(buf)
		if p.ctx.Err() != nil {
			return
		}
		if err != nil {
			if !again(err) {
				time.Sleep(10 * time.Millisecond)
			}
			continue
		}
		if s := p.session(from); s != nil {
			s.send(buf[:n])
		}
	}
}

// session is the client's; without a machine or room there is none, and the datagram is lost.
func (p *Published) session(client netip.AddrPort) *portSession {
	target := p.target()
	p.mu.Lock()
	s := p.sessions[client]
	p.mu.Unlock()
	if s != nil && s.target == target {
		return s
	}
	if s != nil { // of a machine that has gone
		s.end()
	}
	if target == nil || p.greedy() || !p.conns.take(1) {
		return nil
	}
	if !p.net.ports.take(1) {
		p.conns.give(1)
		return nil
	}
	s = &portSession{pub: p, client: client, target: target}
	conn, err := s.dial(loopback4)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.closed {
		p.net.ports.give(1)
		p.conns.give(1)
		if conn != nil {
			conn.Close()
		}
		return nil
	}
	s.inside = conn
	s.alarm = idleAlarm(&s.last, p.net.idle, s.end)
	p.sessions[client] = s
	p.work.Go(s.answer)
	return s
}

func (s *portSession) dial(to netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.pub.ctx, insideTime)
	defer cancel()
	return s.target.Dial(ctx, "udp", netip.AddrPortFrom(to, uint16(s.pub.Port.GuestPort)))
}

func (s *portSession) send(b []byte) {
	s.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.settled {
		s.pending = append(s.pending[:0], b...)
	}
	if _, err := s.inside.Write(b); errors.Is(err, syscall.ECONNREFUSED) { // what an earlier one met
		_, _ = s.inside.Write(b)
	}
}

// answer passes back what the server inside says, until the session ends.
func (s *portSession) answer() {
	defer s.end()
	for {
		s.mu.Lock()
		inside, ended := s.inside, s.ended
		s.mu.Unlock()
		if ended {
			return
		}
		err := nextInside(inside, func(b []byte) {
			s.last.Store(time.Now().UnixNano())
			s.mu.Lock()
			s.settled, s.pending = true, nil
			s.mu.Unlock()
			_, _ = s.pub.socket.WriteToUDPAddrPort(b, s.client)
		})
		if (errors.Is(err, syscall.ECONNREFUSED) || err == io.EOF) && s.trySix() {
			continue
		}
		if err != nil && !again(err) {
			return
		}
	}
}

// nextInside waits for the next datagram of a server: of a socket without a buffer, of a guest's stream, which ends where nobody
// listens, with one.
func nextInside(c net.Conn, f func(b []byte)) error {
	if socket, is := c.(*net.UDPConn); is {
		return outerUDP{socket}.nextRaw(f)
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err == nil {
		f(b[:n])
	}
	return err
}

// trySix looks for the server at the other loopback, as long as nothing has answered.
func (s *portSession) trySix() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled || s.ended {
		return false
	}
	to := netip.IPv6Loopback()
	if s.six {
		to = loopback4
	}
	conn, err := s.dial(to)
	if err != nil {
		return false
	}
	s.inside.Close()
	first := !s.six
	s.inside, s.six = conn, !s.six
	if first && s.pending != nil { // once, else it would go to and fro
		_, _ = conn.Write(s.pending)
	}
	return true
}

func (s *portSession) end() {
	s.ending.Do(func() {
		s.mu.Lock()
		s.ended = true
		s.inside.Close()
		s.mu.Unlock()
		s.alarm.Stop()
		go func() { // who ends it may hold the lock
			p := s.pub
			p.mu.Lock()
			if p.sessions[s.client] == s {
				delete(p.sessions, s.client)
			}
			p.mu.Unlock()
			p.net.ports.give(1)
			p.conns.give(1)
		}()
	})
}
