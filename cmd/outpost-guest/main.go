// Command outpost-guest is the first process of a microVM's guest. It does nothing anywhere else.
package main

import (
	"fmt"
	"os"

	"outpost.run/outpost/internal/engine/microvm/keeper"
	"outpost.run/outpost/internal/host/boot"
)

func main() {
	err := keeper.Run()
	fmt.Fprintln(os.Stderr, "outpost:", err)
	_ = boot.Off()
	os.Exit(1)
}
