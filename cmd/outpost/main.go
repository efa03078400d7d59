// Outpost runs untrusted programs in isolated sandboxes: the server, and the commands that use it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	root := &cobra.Command{Use: "outpost", Short: "Runs untrusted programs in isolated sandboxes", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(serveCommand())
	err := root.ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "outpost: "+err.Error())
		os.Exit(1)
	}
}
