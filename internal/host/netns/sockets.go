package netns

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// Sockets makes sockets inside network namespaces, by threads kept for it. A socket belongs to the namespace it was made
// in for all its life, whoever uses it.
type Sockets struct {
	start sync.Once
	work  chan order
	end   sync.Once
	ended chan struct{}
}

type order struct {
	ns           *os.File
	family, kind int
	made         chan<- made
}

type made struct {
	fd  int
	err error
}

// threads that make sockets; one takes some 10 µs.
const threads = 2

// Dial connects from within ns to an address there. Where nobody listens the kernel may choose that very port for our end
// and connect the socket to itself: that is refused, too.
func (s *Sockets) Dial(ctx context.Context, ns *os.File, network string, to netip.AddrPort) (net.Conn, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := s.socket(ns, family, kind)
	if err != nil {
		return nil, &host.StepError{Step: "socket", Err: err}
	}
	f := os.NewFile(uintptr(fd), network)
	defer f.Close() // FileConn makes a copy
	if err := connect(ctx, f, to); err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	conn, err := net.FileConn(f)
	if err == nil && toItself(conn) {
		if stream, is := conn.(*net.TCPConn); is {
			_ = stream.SetLinger(0) // else it would keep the port from a server for a minute
		}
		conn.Close()
		return nil, &net.OpError{Op: "dial", Net: network, Err: unix.ECONNREFUSED}
	}
	return conn, err
}

// toItself: a connection that its other end has reset already has no address there.
func toItself(conn net.Conn) bool {
	here, there := conn.LocalAddr(), conn.RemoteAddr()
	return here != nil && there != nil && here.String() == there.String()
}

func (s *Sockets) socket(ns *os.File, family, kind int) (int, error) {
	s.begin()
	answer := make(chan made, 1)
	select {
	case s.work <- order{ns, family, kind, answer}:
		m := <-answer
		return m.fd, m.err
	case <-s.ended:
		return -1, net.ErrClosed
	}
}

func (s *Sockets) begin() {
	s.start.Do(func() {
		s.work, s.ended = make(chan order), make(chan struct{})
		for range threads {
			host.OnThread(s.serve)
		}
	})
}

// Close ends the threads; it is idempotent.
func (s *Sockets) Close() {
	s.begin()
	s.end.Do(func() { close(s.ended) })
}

// serve goes home after each socket, so that no machine's namespace is kept alive.
func (s *Sockets) serve() {
	home, err := Own()
	for {
		var o order
		select {
		case o = <-s.work:
		case <-s.ended:
			if home != nil {
				home.Close()
			}
			return
		}
		if err != nil {
			o.made <- made{-1, err}
			continue
		}
		fd, failed := -1, enter(o.ns)
		if failed == nil {
			fd, failed = unix.Socket(o.family, o.kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			err = enter(home)
		}
		o.made <- made{fd, failed}
	}
}

func connect(ctx context.Context, f *os.File, to netip.AddrPort) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var address unix.Sockaddr
	if to.Addr().Is6() {
		address = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		address = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	result := error(nil)
	if err := raw.Control(func(fd uintptr) { result = unix.Connect(int(fd), address) }); err != nil {
		return err
	}
	if result != unix.EINPROGRESS && result != unix.EINTR {
		return result
	}
	defer context.AfterFunc(ctx, func() { f.Close() })()
	err = raw.Write(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, _ := unix.Poll(ready, 0); n == 0 {
			return false
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if result = err; err == nil && code != 0 {
			result = syscall.Errno(code)
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return result
}
