package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func rmCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:     "rm ID...",
		Short:   "Delete sandboxes, with what runs in them",
		Example: `  outpost rm $(outpost ls -q)`,
		Args:    asUsed,
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forEach(cmd, ids, c.Delete)
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, sandboxes(anySandbox))
	return cmd
}

// named is one of several things that a command was done with.
type named struct {
	ID string `json:"id"`
}

// forEach does it with all it can, prints the id of each that it was done with, and says of each other why not.
func forEach(cmd *cobra.Command, ids []string, do func(context.Context, string) error) error {
	return forAll(cmd, ids, func(ctx context.Context, id string) (named, error) { return named{id}, do(ctx, id) })
}

// forAll is forEach where programs read more than the id.
func forAll[T any](cmd *cobra.Command, ids []string, do func(context.Context, string) (T, error)) error {
	json := asJSON(cmd)
	done, failed := []T{}, error(nil)
	for _, id := range ids {
		it, err := do(cmd.Context(), id)
		if err != nil {
			sayError(cmd.ErrOrStderr(), json, id, err)
			failed = exitError(exitFailed)
			continue
		}
		done = append(done, it)
		if !json {
			fmt.Fprintln(cmd.OutOrStdout(), id)
		}
	}
	if !json {
		return failed
	}
	return errors.Join(printJSON(cmd.OutOrStdout(), done), failed)
}
