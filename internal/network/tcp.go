package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// How much one connection's stack may hold on the way in, and as much on the way out. A machine's first connections get
// the most; the more it has, the less a new one gets, so that all of one machine's hold some 60 MB at the worst (TestWhatNobodyReadsIsBounded), and
// when all machines together hold allBuffers, a new connection gets the least.
const (
	leastBuffer = 16 << 10
	mostBuffer  = 512 << 10
	linkBuffers = 4 << 20
	allBuffers  = 1 << 30
)

func (l *Link) bufferOf(connections int64) int64 {
	return min(max(linkBuffers/max(connections, 1), leastBuffer), mostBuffer)
}

// start counts a connection of the machine and of the node; done gives it back. No room: nil.
func (l *Link) start() (done func()) {
	if l.net.links.scarce() && l.conns.used.Load() >= fewConnections || !l.conns.take(1) {
		return nil
	}
	if !l.net.links.take(1) {
		l.conns.give(1)
		return nil
	}
	if !l.begin() {
		l.net.links.give(1)
		l.conns.give(1)
		return nil
	}
	return func() { l.net.links.give(1); l.conns.give(1); l.work.Done() }
}

// acceptTCP answers one request for a connection. The way out is made first: what can't be reached was never accepted.
func (l *Link) acceptTCP(r *tcp.ForwarderRequest) {
	l.pace.ReserveN(time.Now(), askingCosts)
	done := l.start()
	if done == nil {
		r.Complete(true)
		return
	}
	defer done()
	id := r.ID()
	to := addrPort(id.LocalAddress, id.LocalPort)
	if to == netip.AddrPortFrom(gateway4, 53) {
		if in := l.complete(r); in != nil {
			l.serveStream(in)
		}
		return
	}
	v := l.rules.judge(to)
	if v == refused {
		r.Complete(true)
		return
	}
	out, err := l.net.dial(l.ctx, "tcp", to)
	if err != nil {
		r.Complete(true)
		return
	}
	defer out.Close()
	in := l.complete(r)
	if in == nil {
		return
	}
	defer l.net.buffers.give(2 * in.buffer)
	from := io.Reader(in)
	if v == byName {
		from = &named{from: in, allowed: func(host string) bool { return l.rules.names(host, to.Port()) }}
	}
	l.join(in, from, out.(*net.TCPConn))
}

// insider is the machine's end of a connection.
type insider struct {
	*gonet.TCPConn
	end    tcpip.Endpoint
	buffer int64
}

// complete makes the machine's end of the connection that it asked for.
func (l *Link) complete(r *tcp.ForwarderRequest) *insider {
	var queue waiter.Queue
	end, failed := r.CreateEndpoint(&queue)
	r.Complete(failed != nil)
	if failed != nil {
		return nil
	}
	in := &insider{gonet.NewTCPConn(&queue, end), end, l.bufferOf(l.conns.used.Load())}
	if !l.net.buffers.take(2 * in.buffer) {
		in.buffer = leastBuffer
		l.net.buffers.used.Add(2 * in.buffer) // over the most by the least, as often as there are connections
	}
	end.SocketOptions().SetReceiveBufferSize(in.buffer, true)
	end.SocketOptions().SetSendBufferSize(in.buffer, true)
	return in
}

// copyBuffers is what bytes pass through; both ways of a connection hold one while it is open.
var copyBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// join copies both ways until both have ended. The end of one way is passed on alone, a reset ends both.
func (l *Link) join(in *insider, from io.Reader, out *net.TCPConn) {
	stop := func() { in.end.Abort(); out.Close() }
	defer context.AfterFunc(l.ctx, stop)()
	reset := func() {
		_ = out.SetLinger(0)
		stop()
	}
	var back sync.WaitGroup
	back.Go(func() {
		if err := pass(in, out); err != nil {
			reset()
			return
		}
		_ = in.CloseWrite()
	})
	if err := pass(out, from); err != nil {
		reset()
	} else {
		_ = out.CloseWrite()
	}
	back.Wait()
	in.Close()
}

// pass copies until the end; any error but that is a break of the connection.
func pass(to io.Writer, from io.Reader) error {
	b := copyBuffers.Get().(*[16 << 10]byte)
	defer copyBuffers.Put(b)
	// The plain types: with ReadFrom and WriteTo the buffer would not be ours.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, b[:])
	return err
}
