// Outpost runs untrusted programs in isolated sandboxes: the server, and the commands that use it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends what does not hear of the first
	code := execute(ctx, rootCommand(), os.Args[1:])
	stop()
	os.Exit(code)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "outpost",
		Short: "Runs untrusted programs in isolated sandboxes",
		Long: `outpost gives a program that nobody trusts a clean Linux machine of its own.

Start a server with "outpost serve", or see it all at once with "outpost demo".
The other commands speak to a server: beside one on this host they find it by its
data directory, else say where it is by OUTPOST_URL and OUTPOST_TOKEN.

` + exitCodes,
		Version:       version(),
		SilenceErrors: true, // said by execute, once
		SilenceUsage:  true,
	}
	root.PersistentFlags().Bool(jsonFlag, false, "print JSON for programs: answers on stdout, an error as {\"error\":{…}} on stderr")
	root.AddCommand(serveCommand())
	root.AddCommand(clientCommands()...)
	completeFlags(root)
	return root
}
