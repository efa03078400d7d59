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
	return turnCommand("stop", "Stop stateful sandboxes: their files stay, memory and processes go", runningStateful, (*client.Client).Stop)
}

func startCommand() *cobra.Command {
	return turnCommand("start", "Start stopped or lost stateful sandboxes on their files", startable, (*client.Client).Start)
}

func turnCommand(name, short string, fits func(sandbox.Sandbox) bool, do func(*client.Client, context.Context, string) (sandbox.Sandbox, error)) *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   name + " ID...",
		Short: short,
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forAll(cmd, ids, func(ctx context.Context, id string) (sandbox.Sandbox, error) { return do(c, ctx, id) })
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, sandboxes(fits))
	return cmd
}

func eventsCommand() *cobra.Command {
	var at connection
	var since uint64
	cmd := &cobra.Command{
		Use:   "events [ID]",
		Short: "Show changes of sandboxes as they come, until interrupted",
		Long:  "Shows changes of sandboxes as they come, until interrupted; with --json one object a line.",
		Args:  asUsed,
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
				if asJSON(cmd) {
					return printJSONLine(out, e)
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
				return nil // who stops looking has seen what there is
			}
			return err
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, nil))
	cmd.Flags().Uint64Var(&since, "since", 0, "begin after the event of this number; 0 tells all that is kept")
	return cmd
}
