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
			return removeEach(cmd.Context(), ids, cmd.OutOrStdout(), cmd.ErrOrStderr(), c.Delete)
		},
	}
	at.flags(cmd)
	return cmd
}

// removeEach removes all it can, prints the id of each that went, and says of each other why not.
func removeEach(ctx context.Context, ids []string, out, log io.Writer, remove func(context.Context, string) error) error {
	var failed error
	for _, id := range ids {
		if err := remove(ctx, id); err != nil {
			fmt.Fprintf(log, "outpost: %s: %s\n", id, inWords(err))
			failed = exitError(exitFailed)
			continue
		}
		fmt.Fprintln(out, id)
	}
	return failed
}
