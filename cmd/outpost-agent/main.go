// Command outpost-agent is the first process of a machine. It is started with a listening socket as descriptor 3 and a lifeline as
// standard input. Under the name of a launcher it is what starts it, with a socket to the daemon as descriptor 3.
package main

import (
	"fmt"
	"net"
	"os"

	"outpost.run/outpost/internal/agent/guest"
	"outpost.run/outpost/internal/host"
)

func main() {
	if os.Args[0] == host.LauncherName {
		if err := host.ServeLauncher(os.NewFile(3, "socket")); err != nil {
			fmt.Fprintln(os.Stderr, "launcher:", err)
			os.Exit(1)
		}
		return
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err == nil {
		err = guest.Serve(listener, os.Stdin)
	}
	fmt.Fprintln(os.Stderr, "agent:", err)
	os.Exit(1)
}
