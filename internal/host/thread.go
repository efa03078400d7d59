package host

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// OnThread starts f on a thread that ends with it. That is never the process's first: it would not end but stay where f
// left it, and what the kernel tells of the process by /proc/self is told of that thread.
func OnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return // without unlocking
		}
		done := make(chan struct{})
		go func() { // on another one, since this one waits
			runtime.LockOSThread()
			defer close(done)
			f()
		}()
		<-done
		runtime.UnlockOSThread()
	}()
}
