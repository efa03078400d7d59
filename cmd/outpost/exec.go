package main

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// inBackground starts a program and prints its exec's id, or with --json the exec.
func inBackground(cmd *cobra.Command, c *client.Client, id string, r sandbox.ExecRequest) error {
	e, err := c.Background(cmd.Context(), id, r)
	if err != nil {
		return err
	}
	return printLine(cmd, e, e.ID)
}

func execCommand() *cobra.Command {
	var at connection
	var p program
	var terminal, background bool
	cmd := &cobra.Command{
		Use:   "exec [flags] ID FILE|- [ARGUMENT...]\n  outpost exec [flags] ID -- COMMAND [ARGUMENT...]",
		Short: "Run a program or a command in a sandbox, and pass its output and exit code through",
		Long: `Runs a program or a command in a sandbox, and passes its output through as it comes, and its exit
code: 124 at its time limit, 137 at its memory limit, 128+n for signal n.
What goes wrong beside the program exits 125, wrong usage too. With --json the whole result is one
object on stdout, with the same exit code.`,
		Example: `  outpost exec sb_1f0c9a2b7d3e step.py
  outpost exec sb_1f0c9a2b7d3e -- ls -l
  outpost exec -c 'print(6*7)' sb_1f0c9a2b7d3e
  outpost exec -it sb_1f0c9a2b7d3e -- top
  outpost exec -d sb_1f0c9a2b7d3e -- python3 -m http.server`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, args := args[0], args[1:]
			p.inputTaken = terminal
			var r sandbox.ExecRequest
			var err error
			if len(args) > 1 && args[0] == "--" {
				r, err = p.command(cmd, args[1:])
			} else {
				r, err = p.request(cmd, args)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return wrongUsage("there is no file %s: flags go before ID, and a command comes after --, as in outpost exec %s -- %s", args[0], id, strings.Join(args, " "))
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
				return inBackground(cmd, c, id, r)
			}
			return p.runLive(cmd, func() (sandbox.ExecResult, error) {
				return c.Exec(cmd.Context(), id, r)
			}, func(live client.Live) (sandbox.ExecResult, error) {
				return c.ExecLive(cmd.Context(), id, r, live)
			})
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, 1, sandboxes(anySandbox))
	p.flags(cmd)
	p.outputFlag(cmd)
	cmd.Flags().BoolVarP(&terminal, "tty", "t", false, "give the command this terminal (stateful sandboxes)")
	cmd.Flags().BoolVarP(&background, "detach", "d", false, "leave the program running in the background and print its exec's id (stateful sandboxes)")
	cmd.Flags().SetInterspersed(false) // what follows ID is the program's
	return passesThrough(cmd)
}
