package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func stopCommand() *cobra.Command {
	return turnCommand("stop", "Stop stateful sandboxes: their files stay, memory and processes go", (*client.Client).Stop)
}

func startCommand() *cobra.Command {
	return turnCommand("start", "Start stopped or lost stateful sandboxes on their files", (*client.Client).Start)
}

func turnCommand(name, short string, do func(*client.Client, context.Context, string) (sandbox.Sandbox, error)) *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   name + " ID...",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forEach(cmd.Context(), ids, cmd.OutOrStdout(), cmd.ErrOrStderr(), func(ctx context.Context, id string) error {
				_, err := do(c, ctx, id)
				return err
			})
		},
	}
	at.flags(cmd)
	return cmd
}

func eventsCommand() *cobra.Command {
	var at connection
	var since uint64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events [ID]",
		Short: "Show changes of sandboxes as they come, until interrupted",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			id, from := "", (*uint64)(nil)
			if len(args) == 1 {
				id = args[0]
			}
			if cmd.Flags().Changed("since") {
				from = &since
			}
			out := cmd.OutOrStdout()
			err = c.Events(cmd.Context(), id, from, func(e sandbox.Event) error {
				if asJSON {
					return printJSON(out, e)
				}
				what := e.Type
				if e.Health != nil {
					what += " " + string(*e.Health)
				}
				if e.Reason != "" {
					what += " (" + e.Reason + ")"
				}
				_, err := fmt.Fprintf(out, "%6d  %s  %s  %s\n", e.Seq, e.At, e.SandboxID, what)
				return err
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	at.flags(cmd)
	cmd.Flags().Uint64Var(&since, "since", 0, "begin after the event of this number; 0 tells all that is kept")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each as JSON")
	return cmd
}
