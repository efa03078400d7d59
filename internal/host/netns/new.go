package netns

import (
	"os"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/host"
)

// New makes a network namespace with nothing but a loopback that is down. It lives as long as the file, or somebody in it.
func New() (ns *os.File, err error) {
	done := make(chan error, 1)
	host.OnThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns, err = Own()
		}
		done <- err
	})
	if err := <-done; err != nil {
		return nil, &host.StepError{Step: "make a network namespace", Err: err}
	}
	return ns, nil
}
