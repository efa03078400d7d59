// Package netns makes sockets and links in the network namespaces of machines. A thread that enters one never comes back
// to the Go program's other work: it is thrown away, or kept for such errands alone.
package netns

import (
	"os"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// In runs f on a thread inside the network namespace ns.
func In(ns *os.File, f func() error) error {
	done := make(chan error, 1)
	host.OnThread(func() {
		if err := enter(ns); err != nil {
			done <- &host.StepError{Step: "enter the network namespace", Err: err}
			return
		}
		done <- f()
	})
	return <-done
}

// enter holds on to the file meanwhile: another one of its number would be another machine.
func enter(ns *os.File) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return err
	}
	var entered error
	if err := raw.Control(func(fd uintptr) { entered = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return err
	}
	return entered
}

// Own is the calling thread's network namespace.
func Own() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }
