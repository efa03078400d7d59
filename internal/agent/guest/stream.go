package guest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
)

// stream carries one of a program's outputs to the daemon; what is over the limit is counted and dropped, so that the
// program is never blocked.
type stream struct {
	x     *execution
	kind  agent.Kind
	pipe  *os.File
	limit int64
	idle  chan struct{} // closed when the pipe was empty after the deadline, or is at its end

	mu    sync.Mutex
	total int64
	muted bool // the exec is over; what background processes still write is dropped
}

// smallBuffer is what a stream begins with: a thousand programs may run, and most say little.
const smallBuffer = 2 << 10

func (x *execution) drain(kind agent.Kind, pipe *os.File, limit int64) *stream {
	s := &stream{x: x, kind: kind, pipe: pipe, limit: limit, idle: make(chan struct{})}
	go s.copy()
	return s
}

func (s *stream) copy() {
	defer s.pipe.Close()
	buf := make([]byte, smallBuffer)
	for {
		n, err := s.pipe.Read(buf)
		s.send(buf[:n])
		if n == smallBuffer {
			buf = make([]byte, agent.MaxData)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.empty(buf)
			close(s.idle)
			_ = s.pipe.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, s.pipe) // for as long as a background process holds it
			return
		}
		if err != nil {
			close(s.idle)
			return
		}
	}
}

// empty takes what is in the pipe now, and no more than that of what a background process adds all the while.
func (s *stream) empty(buf []byte) {
	raw, err := s.pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		room, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		if err != nil { // a terminal
			room, err = agent.MaxData, nil
		}
		for err == nil && room > 0 {
			var n int
			n, err = unix.Read(int(fd), buf)
			if err == unix.EINTR {
				err = nil
				continue
			}
			if n <= 0 {
				return
			}
			s.send(buf[:n])
			room -= n
		}
	})
}

func (s *stream) send(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.muted || len(b) == 0 {
		return
	}
	keep := min(int64(len(b)), max(0, s.limit-s.total))
	s.total += int64(len(b))
	if keep == 0 {
		return
	}
	s.x.kept.add(s.kind, b[:keep])
	s.x.out.Lock()
	defer s.x.out.Unlock()
	_ = agent.WriteFrame(s.x.conn, s.kind, b[:keep]) // a daemon that is gone is noticed by who reads from it
}

// finish takes the last of the output after the first process has ended. Where the rest was killed the end of the pipe
// comes by itself, but is not waited for longer than a moment: a process may hang in the kernel.
func (s *stream) finish(killed bool) {
	if killed {
		select {
		case <-s.idle:
		case <-time.After(50 * time.Millisecond):
			_ = s.pipe.SetReadDeadline(time.Unix(1, 0))
			<-s.idle
		}
	} else {
		_ = s.pipe.SetReadDeadline(time.Unix(1, 0))
		<-s.idle
	}
	s.mu.Lock()
	s.muted = true
	s.mu.Unlock()
}

// say adds words of the agent's own, after finish.
func (s *stream) say(text string) {
	s.mu.Lock()
	s.muted = false
	s.mu.Unlock()
	s.send([]byte(text))
}

// input carries standard input to the program, and kills the exec when the connection ends.
func (x *execution) input() {
	buf := make([]byte, smallBuffer) // a longer frame takes what it needs for as long as it lasts
	stdin := x.process.Stdin
	if x.terminal != nil {
		stdin.Close()
		if stdin = x.terminal.input(); stdin == nil {
			x.hangUp()
			return
		}
	}
	defer stdin.Close()
	for {
		kind, b, err := agent.ReadFrame(x.conn, buf, agent.MaxData)
		if err == nil && kind == agent.KindControl {
			err = x.controlled(b)
			if err == nil {
				continue
			}
		}
		if err != nil || kind != agent.KindStdin {
			x.hangUp()
			return
		}
		switch {
		case stdin == nil:
		case len(b) == 0:
			stdin.Close()
			stdin = nil
		default:
			if err := x.feed(stdin, b); err != nil {
				if errors.Is(err, errHangup) {
					x.hangUp()
					return
				}
				stdin.Close() // the program doesn't want it
				stdin = nil
			}
		}
	}
}

var errHangup = errors.New("the daemon hung up")

// feed writes to the program, and watches the connection while the program doesn't read.
func (x *execution) feed(stdin *os.File, b []byte) error {
	pipe, err := stdin.SyscallConn()
	if err != nil {
		return err
	}
	sock, err := x.conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var result error
	_ = pipe.Control(func(out uintptr) {
		_ = sock.Control(func(in uintptr) {
			for len(b) > 0 {
				n, err := unix.Write(int(out), b)
				switch {
				case err == nil:
					b = b[n:]
				case err == unix.EAGAIN:
					polled := []unix.PollFd{{Fd: int32(out), Events: unix.POLLOUT}, {Fd: int32(in), Events: unix.POLLRDHUP}}
					if _, err := unix.Poll(polled, -1); err != nil && err != unix.EINTR {
						result = err
						return
					}
					if polled[1].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0 {
						result = errHangup
						return
					}
				case err != unix.EINTR:
					result = err
					return
				}
			}
		})
	})
	return result
}
