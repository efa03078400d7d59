package network_test

import (
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host/netns"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/internal/network/inside"
	"outpost.run/outpost/internal/network/networktest"
)

// TestAClosedLinkLeavesNothing: no goroutine, no descriptor and no interface, with connections open and closed.
func TestAClosedLinkLeavesNothing(t *testing.T) {
	world.Zone(map[string][]string{"a.example": {"93.184.216.34"}})
	n := open(t, network.Options{})
	once := func() {
		m := newMachine(t, n, network.Egress{Mode: network.Public})
		m.addresses("a.example")
		for _, to := range []string{"93.184.216.34:7", "8.8.8.8:7", "[2600:9000:1::34]:7"} {
			c, err := m.dial("tcp", to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		answersUDP(m, "93.184.216.34:7")
		m.link.Close()
		c, err := m.dial("tcp", "93.184.216.34:80")
		if err == nil {
			c.Close()
			t.Error("a machine without its link reaches the world")
		}
		m.sockets.Close()
		m.sockets = &netns.Sockets{}
		m.ns.Close()
	}
	once() // what is made once and kept
	before, files := runtime.NumGoroutine(), descriptors(t)
	for range 5 {
		once()
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before || descriptors(t) > files; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, then %d; %d descriptors, then %d\n%s", before, runtime.NumGoroutine(), files, descriptors(t), buf[:runtime.Stack(buf, true)])
		}
	}
}

// descriptors counts all but pipes, which Go keeps to splice through.
func descriptors(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && !strings.HasPrefix(to, "pipe:") {
			n++
		}
	}
	return n
}

// BenchmarkConnect is the time to give a machine its link and to take it away, and the memory of an idle one.
func BenchmarkConnect(b *testing.B) {
	n := open(b, network.Options{})
	namespaces := []*os.File{}
	links := []*network.Link{}
	for range b.N {
		ns, err := networktest.NewNamespace()
		if err != nil {
			b.Fatal(err)
		}
		namespaces = append(namespaces, ns)
	}
	before := heap()
	b.ResetTimer()
	for _, ns := range namespaces {
		l, err := n.Connect(b.Context(), inside.New(kernel, &netns.Sockets{}, ns), network.Egress{Mode: network.Public})
		if err != nil {
			b.Fatal(err)
		}
		links = append(links, l)
	}
	b.StopTimer()
	b.ReportMetric(float64(heap()-before)/float64(b.N)/1024, "KiB/link")
	start := time.Now()
	for _, l := range links {
		l.Close()
	}
	b.ReportMetric(float64(time.Since(start).Microseconds())/float64(b.N), "µs/close")
	for _, ns := range namespaces {
		ns.Close()
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// BenchmarkThroughput is what one connection carries each way.
func BenchmarkThroughput(b *testing.B) {
	m := newMachine(b, open(b, network.Options{}), network.Egress{Mode: network.Public})
	c, err := m.sockets.Dial(b.Context(), m.ns, "tcp", netip.MustParseAddrPort("93.184.216.34:7"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	chunk := make([]byte, 1<<20)
	b.SetBytes(int64(len(chunk)))
	b.ResetTimer()
	go func() {
		for range b.N {
			_, _ = c.Write(chunk)
		}
	}()
	if _, err := io.CopyN(io.Discard, c, int64(b.N)*int64(len(chunk))); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFlood is what one machine costs this process that sends as many packets as it can, beside the thread that sends
// them: datagrams to a port where nobody listens, or requests for connections.
func BenchmarkFlood(b *testing.B) {
	for name, kind := range map[string]int{"udp": unix.SOCK_DGRAM, "syn": unix.SOCK_STREAM} {
		b.Run(name, func(b *testing.B) {
			m := newMachine(b, open(b, network.Options{}), network.Egress{Mode: network.Public})
			to := &unix.SockaddrInet4{Port: 9, Addr: network.Resolver().As4()}
			var own, before, after unix.Rusage
			b.ResetTimer()
			err := netns.In(m.ns, func() error {
				_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
				defer func() {
					_ = unix.Getrusage(unix.RUSAGE_THREAD, &own)
					_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
				}()
				for range b.N {
					fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK, 0)
					if err != nil {
						return err
					}
					_ = unix.Connect(fd, to)
					for i := 0; i < 100 && kind == unix.SOCK_DGRAM; i++ {
						_, _ = unix.Write(fd, []byte("x"))
					}
					_ = unix.Close(fd)
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			spent := func(r unix.Rusage) float64 { return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds() }
			b.ReportMetric((spent(after)-spent(before)-spent(own))/b.Elapsed().Seconds(), "cores")
			b.ReportMetric(spent(own)/b.Elapsed().Seconds(), "cores-sending")
		})
	}
}
