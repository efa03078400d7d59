package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func shellCommand() *cobra.Command {
	var at connection
	var o client.TerminalOptions
	cmd := &cobra.Command{
		Use:   "shell [flags] ID",
		Short: "Open a shell in a stateful sandbox, in this terminal",
		Long: `Opens a login shell in a stateful sandbox, in this terminal, and passes its exit code through.
What it leaves in the background stays. A connection that breaks hangs the shell up.`,
		Args: asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return sit(cmd, c, args[0], o)
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(runningStateful, nil))
	cmd.Flags().StringVar(&o.User, "user", "", "user to run as: name, uid or uid:gid")
	cmd.Flags().StringVar(&o.WorkingDir, "working-dir", "", "absolute folder to begin in")
	return passesThrough(cmd)
}

// inTerminal runs an exec's command in this terminal.
func inTerminal(cmd *cobra.Command, c *client.Client, id string, r sandbox.ExecRequest) error {
	if r.Command == nil {
		return wrongUsage("a terminal is for a command: name it after --, as in outpost exec -t ID -- python3")
	}
	o := client.TerminalOptions{Command: r.Command}
	if r.User != nil {
		o.User = *r.User
	}
	if r.WorkingDir != nil {
		o.WorkingDir = *r.WorkingDir
	}
	return sit(cmd, c, id, o)
}

// sit joins this terminal and one of a sandbox until the program there has ended.
func sit(cmd *cobra.Command, c *client.Client, id string, o client.TerminalOptions) error {
	if asJSON(cmd) {
		return wrongUsage("what a terminal shows is not for programs to read: leave --json out")
	}
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		return errors.New("standard input is no terminal: use outpost exec -i instead")
	}
	o.Term = os.Getenv("TERM")
	o.Size = sizeOf(in)
	t, err := c.OpenTerminal(cmd.Context(), id, o)
	if err != nil {
		return err
	}
	defer t.Close()
	before, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	defer term.Restore(in, before) //nolint:errcheck // there is nothing else to do
	go func() { _, _ = io.Copy(t, os.Stdin) }()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	go func() {
		for range resized {
			_ = t.Resize(sizeOf(in))
		}
	}()
	r, err := t.Show(os.Stdout)
	if err != nil {
		return err
	}
	if r.ExitCode != 0 {
		return exitError(r.ExitCode)
	}
	return nil
}

func sizeOf(fd int) sandbox.TerminalSize {
	cols, rows, err := term.GetSize(fd)
	if err != nil || cols < 1 || rows < 1 {
		return sandbox.TerminalSize{Cols: 80, Rows: 24}
	}
	return sandbox.TerminalSize{Cols: cols, Rows: rows}
}
