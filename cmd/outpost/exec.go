package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// inBackground starts a program and prints its exec's id, or with --json the exec.
func inBackground(cmd *cobra.Command, c *client.Client, id string, r sandbox.ExecRequest, asJSON bool) error {
	e, err := c.Background(cmd.Context(), id, r)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), e)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), e.ID)
	return err
}

func execCommand() *cobra.Command {
	var at connection
	var p program
	var terminal, background bool
	cmd := &cobra.Command{
		Use:   "exec [flags] ID FILE|- [ARGUMENT...]\n  outpost exec [flags] ID -- COMMAND [ARGUMENT...]",
		Short: "Run a program or a command in a sandbox, and pass its output and exit code through",
		Example: `  outpost exec sb_1f0c9a2b7d3e step.py
  outpost exec sb_1f0c9a2b7d3e -- ls -l
  outpost exec -c 'print(6*7)' sb_1f0c9a2b7d3e
  outpost exec -it sb_1f0c9a2b7d3e -- top
  outpost exec -d sb_1f0c9a2b7d3e -- python3 -m http.server`,
		Args: cobra.MinimumNArgs(1),
		RunE: passingThrough(func(cmd *cobra.Command, args []string) error {
			id, args := args[0], args[1:]
			p.stdin = p.stdin && !terminal
			var r sandbox.ExecRequest
			var err error
			if len(args) > 1 && args[0] == "--" {
				r, err = p.command(cmd, args[1:])
			} else {
				r, err = p.request(cmd, args)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no file %s: flags go before ID, and a command comes after --, as in outpost exec %s -- %s", args[0], id, strings.Join(args, " "))
			}
			if err != nil {
				return err
			}
			c, err := at.open()
			if err != nil {
				return err
			}
			switch {
			case terminal:
				return inTerminal(cmd, c, id, r)
			case background:
				return inBackground(cmd, c, id, r, p.json)
			}
			return p.runLive(cmd, func() (sandbox.ExecResult, error) {
				return c.Exec(cmd.Context(), id, r)
			}, func(live client.Live) (sandbox.ExecResult, error) {
				return c.ExecLive(cmd.Context(), id, r, live)
			})
		}),
	}
	at.flags(cmd)
	p.flags(cmd)
	cmd.Flags().BoolVarP(&terminal, "tty", "t", false, "give the command this terminal (stateful sandboxes)")
	cmd.Flags().BoolVarP(&background, "detach", "d", false, "leave the program running in the background and print its exec's id (stateful sandboxes)")
	cmd.Flags().SetInterspersed(false) // what follows ID is the program's
	return cmd
}
