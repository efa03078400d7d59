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
	if !asJSON(cmd) {
		r.OutputEncoding = nil // who reads the result later reads text
	}
	e, err := c.Background(cmd.Context(), id, r)
	if err != nil {
		return err
	}
	return printLine(cmd, e, e.ID)
}

// inSandbox makes the exec request of what follows ID.
func (p *program) inSandbox(cmd *cobra.Command, id string, args []string) (sandbox.ExecRequest, error) {
	switch {
	case len(args) == 0 || p.code != "" && args[0] != "--":
		return p.request(cmd, args)
	case args[0] == "--" && p.code != "":
		return sandbox.ExecRequest{}, wrongUsage("there are two programs: the one of -c and the command after --; leave one out")
	case args[0] == "--" && len(args) == 1:
		return sandbox.ExecRequest{}, wrongUsage("-- is followed by a command, as in outpost exec %s -- ls -l", id)
	case args[0] == "--":
		return p.command(cmd, args[1:])
	case len(args[0]) > 1 && args[0][0] == '-':
		return sandbox.ExecRequest{}, wrongUsage("%s stands where the program does: put flags of outpost before the sandbox's id, and -- before a command", args[0])
	}
	r, err := p.request(cmd, args)
	if lost, is := errors.AsType[*fs.PathError](err); is && lost.Path == args[0] && errors.Is(err, fs.ErrNotExist) {
		err = wrongUsage("there is no file %s; a command comes after --, as in outpost exec %s -- %s", args[0], id, strings.Join(args, " "))
	}
	return r, err
}

// mayRunOn says what to do where the connection ended before the exec did.
func mayRunOn(id string, err error) error {
	if errors.Is(err, client.ErrSevered) {
		return sandbox.Errorf(sandbox.Lost, err, "the connection to the server was lost before the program's end; it may still run: outpost execs %s tells", id)
	}
	return err
}

// fitsTerminal refuses what a terminal has no place for.
func fitsTerminal(cmd *cobra.Command) error {
	var all []string
	for _, name := range []string{"code", "language", "dep", "env", "file", "collect", "timeout-secs", "memory-mb", "cpu-cores", "pids", "disk-mb", "detach"} {
		if cmd.Flags().Changed(name) {
			all = append(all, "--"+name)
		}
	}
	if all == nil {
		return nil
	}
	return wrongUsage("a terminal (-t) takes no %s; variables go into the command, as in outpost exec -t ID -- env NAME=VALUE bash", strings.Join(all, ", "))
}

func execCommand() *cobra.Command {
	var at connection
	var p program
	var terminal, background, open bool
	cmd := &cobra.Command{
		Use:   "exec [flags] ID FILE|- [ARGUMENT...]\n  outpost exec [flags] ID -- COMMAND [ARGUMENT...]",
		Short: "Run a program or a command in a sandbox, and pass its output and exit code through",
		Long: `Runs a program or a command in a sandbox, and passes its output through as it comes, and its exit
code: 124 at its time limit, 137 at its memory limit, 128+n for signal n. An interrupt here (Ctrl-C) kills it.
What goes wrong beside the program exits 125, wrong usage too. With --json the whole result is one
object on stdout, with the same exit code.

Flags go before ID; what follows the program is the program's. -t takes --user and --working-dir
beside the command.`,
		Example: `  outpost exec sb_1f0c9a2b7d3e step.py
  outpost exec sb_1f0c9a2b7d3e -- ls -l
  outpost exec -c 'print(6*7)' sb_1f0c9a2b7d3e
  outpost exec -it sb_1f0c9a2b7d3e -- top
  outpost exec -d sb_1f0c9a2b7d3e -- python3 -m http.server`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wrongUsage("there is no ID: outpost exec ID FILE, or outpost exec ID -- COMMAND")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, args := args[0], args[1:]
			p.inputTaken, p.live = terminal, !background
			if open && !background {
				return wrongUsage("--stdin-open goes with -d; without it a program gets this command's standard input as it comes")
			}
			if terminal {
				if err := fitsTerminal(cmd); err != nil {
					return err
				}
			}
			r, err := p.inSandbox(cmd, id, args)
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
				r.StdinOpen = given(cmd, "stdin-open", open)
				return inBackground(cmd, c, id, r)
			}
			return mayRunOn(id, p.runLive(cmd, func() (sandbox.ExecResult, error) {
				return c.Exec(cmd.Context(), id, r)
			}, func(live client.Live) (sandbox.ExecResult, error) {
				return c.ExecLive(cmd.Context(), id, r, live)
			}))
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, 1, sandboxes(anySandbox))
	p.flags(cmd)
	p.outputFlag(cmd)
	cmd.Flags().BoolVarP(&terminal, "tty", "t", false, "give the command this terminal (stateful sandboxes)")
	cmd.Flags().BoolVarP(&background, "detach", "d", false, "leave the program running in the background and print its exec's id (stateful sandboxes)")
	cmd.Flags().BoolVar(&open, "stdin-open", false, "with -d: input comes later, by outpost execs stdin")
	cmd.Flags().SetInterspersed(false) // what follows ID is the program's
	return passesThrough(cmd)
}
