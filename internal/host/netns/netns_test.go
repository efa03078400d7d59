package netns_test

import (
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host/netns"
)

// TestTheFirstThreadStaysAtHome: /proc/self tells of the first thread, so that no errand may take it.
func TestTheFirstThreadStaysAtHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	ns := elsewhere(t)
	defer ns.Close()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	first := 0
	for range 2000 {
		done := make(chan bool)
		go func() { done <- unix.Gettid() == unix.Getpid() }() // which lets goroutines change threads
		if <-done {
			first++
		}
		if err := netns.In(ns, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != home {
			t.Fatalf("the first thread is in %s, home is %s (%v)", now, home, err)
		}
	}
	t.Logf("goroutines ran on the first thread %d times", first)
}

func elsewhere(t *testing.T) (ns *os.File) {
	t.Helper()
	own, err := netns.Own()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	err = netns.In(own, func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = netns.Own()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// TestAConnectionThatIsResetAtOnce: the kernel may have forgotten its other end before anybody asks.
func TestAConnectionThatIsResetAtOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	ns, err := netns.Own()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	var s netns.Sockets
	defer s.Close()
	to := l.Addr().(*net.TCPAddr).AddrPort()
	for range 3000 {
		if c, err := s.Dial(t.Context(), ns, "tcp", to); err == nil {
			c.Close()
		}
	}
}
