// Command outpost-agent is the first process of a machine. The daemon starts it with a listening socket as descriptor 3
// and, for a machine that must not outlive the daemon, a lifeline as standard input.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime/debug"

	"outpost.run/outpost/internal/agent/guest"
)

func main() {
	debug.SetGCPercent(25) // a few hundred KB live: memory matters more than speed here
	debug.SetMemoryLimit(48 << 20)
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err == nil {
		err = guest.Serve(listener)
	}
	fmt.Fprintln(os.Stderr, "agent:", err)
	os.Exit(1)
}
