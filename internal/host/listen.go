package host

import (
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ListenIn makes a listening TCP socket at an address of another network namespace. The socket stays in there, whoever
// accepts from it.
func ListenIn(netns *os.File, address string) (net.Listener, error) {
	type made struct {
		l   net.Listener
		err error
	}
	got := make(chan made)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, so nothing else ever runs in there
		var m made
		if m.err = step("enter a network namespace", unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET)); m.err == nil {
			m.l, m.err = net.Listen("tcp4", address)
		}
		got <- m
	}()
	m := <-got
	return m.l, m.err
}
