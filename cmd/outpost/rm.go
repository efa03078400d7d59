package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func rmCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:     "rm ID...",
		Short:   "Delete sandboxes, with what runs in them",
		Example: `  outpost rm $(outpost ls -q)`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forEach(cmd.Context(), ids, cmd.OutOrStdout(), cmd.ErrOrStderr(), c.Delete)
		},
	}
	at.flags(cmd)
	return cmd
}

// forEach does it with all it can, prints the id of each that it was done with, and says of each other why not.
func forEach(ctx context.Context, ids []string, out, log io.Writer, do func(context.Context, string) error) error {
	var failed error
	for _, id := range ids {
		if err := do(ctx, id); err != nil {
			fmt.Fprintf(log, "outpost: %s: %s\n", id, inWords(err))
			failed = exitError(exitFailed)
			continue
		}
		fmt.Fprintln(out, id)
	}
	return failed
}
