package network

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	maxDatagram = 64 << 10
	udpBuffer   = 64 << 10 // of one session, each way
)

// acceptUDP begins a session for one pair of addresses; false has the stack say that the port is unreachable. A name
// opens no UDP: what TLS over UDP asks for could not be seen.
func (l *Link) acceptUDP(r *udp.ForwarderRequest) bool {
	l.pace.ReserveN(time.Now(), askingCosts)
	id := r.ID()
	to := addrPort(id.LocalAddress, id.LocalPort)
	if l.rules.judge(to) != byAddress {
		return false
	}
	done := l.start()
	if done == nil {
		return true // lost, as datagrams are
	}
	out, err := l.net.dial(l.ctx, "udp", to) // does not wait: nothing is sent
	if err != nil {
		done()
		return false
	}
	in := &innerUDP{}
	var failed tcpip.Error
	if in.end, failed = r.CreateEndpoint(&in.queue); failed != nil {
		out.Close()
		done()
		return true
	}
	in.end.SocketOptions().SetReceiveBufferSize(udpBuffer, false)
	in.end.SocketOptions().SetSendBufferSize(udpBuffer, false)
	go func() {
		defer done()
		relay(l.ctx, in, outerUDP{out.(*net.UDPConn)}, l.net.idle)
	}()
	return true
}

// datagramEnd is one end of a session. next waits for a datagram without holding a buffer.
type datagramEnd interface {
	next(use func([]byte)) error
	send(b []byte)
	close()
}

var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// innerUDP is the machine's end.
type innerUDP struct {
	end   tcpip.Endpoint
	queue waiter.Queue
	ready chan struct{}
	entry waiter.Entry
}

func (u *innerUDP) next(use func([]byte)) error {
	if u.ready == nil {
		u.entry, u.ready = waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
		u.queue.EventRegister(&u.entry)
	}
	for {
		buf := datagrams.Get().(*[maxDatagram]byte)
		w := tcpip.SliceWriter(buf[:])
		result, failed := u.end.Read(&w, tcpip.ReadOptions{})
		if failed == nil {
			use(buf[:result.Count])
		}
		datagrams.Put(buf)
		switch failed.(type) {
		case nil, *tcpip.ErrConnectionRefused:
			return nil
		case *tcpip.ErrWouldBlock:
			<-u.ready
		default:
			return errors.New(failed.String())
		}
	}
}

func (u *innerUDP) send(b []byte) {
	_, _ = u.end.Write(bytes.NewReader(b), tcpip.WriteOptions{}) // what can't be sent is lost, as datagrams are
}

func (u *innerUDP) close() { u.end.Close() }

// outerUDP is a connected socket of this process.
type outerUDP struct{ *net.UDPConn }

func (u outerUDP) next(use func([]byte)) error {
	if err := u.nextRaw(use); err != nil && !again(err) {
		return err
	}
	return nil
}

func (u outerUDP) nextRaw(use func([]byte)) error {
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf := datagrams.Get().(*[maxDatagram]byte)
		defer datagrams.Put(buf)
		var n int
		if n, failed = unix.Read(int(fd), buf[:]); failed == unix.EAGAIN {
			return false
		}
		if failed == nil {
			use(buf[:n])
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

// again: an error that an earlier datagram met, after which others may still come.
func again(err error) bool {
	for _, passing := range []error{unix.EINTR, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EMSGSIZE} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

func (u outerUDP) send(b []byte) { _, _ = u.Write(b) }

func (u outerUDP) close() { u.Close() }

// relay copies datagrams both ways until neither came for the time of idle.
func relay(ctx context.Context, a, b datagramEnd, idle time.Duration) {
	stop := sync.OnceFunc(func() { a.close(); b.close() })
	defer context.AfterFunc(ctx, stop)()
	var last atomic.Int64
	alarm := idleAlarm(&last, idle, stop)
	defer alarm.Stop()
	oneWay := func(to, from datagramEnd) {
		defer stop()
		for from.next(func(b []byte) { last.Store(time.Now().UnixNano()); to.send(b) }) == nil {
		}
	}
	var back sync.WaitGroup
	back.Go(func() { oneWay(a, b) })
	oneWay(b, a)
	back.Wait()
}

// idleAlarm calls end when last, which others move on, lies idle behind.
func idleAlarm(last *atomic.Int64, idle time.Duration, end func()) *time.Timer {
	last.Store(time.Now().UnixNano())
	var alarm *time.Timer
	set := make(chan struct{})
	alarm = time.AfterFunc(idle, func() {
		<-set
		if left := idle - time.Since(time.Unix(0, last.Load())); left > 0 {
			alarm.Reset(left)
			return
		}
		end()
	})
	close(set)
	return alarm
}
