package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func execCommand() *cobra.Command {
	var at connection
	var p program
	cmd := &cobra.Command{
		Use:   "exec [flags] ID FILE|- [ARGUMENT...]\n  outpost exec [flags] ID -- COMMAND [ARGUMENT...]",
		Short: "Run a program or a command in a sandbox, and pass its output and exit code through",
		Example: `  outpost exec sb_1f0c9a2b7d3e step.py
  outpost exec sb_1f0c9a2b7d3e -- ls -l
  outpost exec -c 'print(6*7)' sb_1f0c9a2b7d3e`,
		Args: cobra.MinimumNArgs(1),
		RunE: passingThrough(func(cmd *cobra.Command, args []string) error {
			id, args := args[0], args[1:]
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
			result, err := c.Exec(cmd.Context(), id, r)
			if err != nil {
				return err
			}
			return p.show(cmd, result)
		}),
	}
	at.flags(cmd)
	p.flags(cmd)
	cmd.Flags().SetInterspersed(false) // what follows ID is the program's
	return cmd
}
