package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func psCommand() *cobra.Command {
	var at connection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps ID",
		Short: "List the processes of a stateful sandbox",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Processes(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			var rows [][]string
			for _, p := range all {
				rows = append(rows, []string{
					strconv.Itoa(p.Pid), strconv.Itoa(p.PPid), p.User, age(p.StartedAt.Time), fmt.Sprintf("%.2fs", float64(p.CPUMS)/1000),
					fmt.Sprintf("%.1f MiB", float64(p.MemoryBytes)/(1<<20)), printable(strings.Join(p.Command, " ")),
				})
			}
			return table(cmd.OutOrStdout(), []string{"PID", "PPID", "USER", "AGE", "CPU", "MEMORY", "COMMAND"}, rows)
		},
	}
	at.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole rows")
	return cmd
}

// printable is what a sandbox says, without what would move this terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func killCommand() *cobra.Command {
	var at connection
	var signal string
	cmd := &cobra.Command{
		Use:     "kill [flags] ID PID...",
		Short:   "Send a signal to processes of a stateful sandbox",
		Example: "  outpost kill -s SIGKILL sb_1f0c9a2b7d3e 12",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			for _, arg := range args[1:] {
				pid, err := strconv.Atoi(arg)
				if err != nil {
					return fmt.Errorf("%s is no number of a process", arg)
				}
				if err := c.Signal(cmd.Context(), args[0], pid, signal); err != nil {
					return err
				}
			}
			return nil
		},
	}
	at.flags(cmd)
	cmd.Flags().StringVarP(&signal, "signal", "s", "SIGTERM", "the signal's name")
	return cmd
}

func execsCommand() *cobra.Command {
	var at connection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "execs ID",
		Short: "List the programs of a sandbox that run or ended in the last ten minutes",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Execs(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), append([]sandbox.ExecState{}, all...))
			}
			var rows [][]string
			for _, e := range all {
				rows = append(rows, []string{e.ID, string(e.Status), strconv.FormatBool(e.Background), age(e.StartedAt.Time)})
			}
			return table(cmd.OutOrStdout(), []string{"ID", "STATUS", "BACKGROUND", "AGE"}, rows)
		},
	}
	at.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole rows")
	cancel := &cobra.Command{
		Use:   "cancel ID EXEC",
		Short: "Kill the program of an exec",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			_, err = c.CancelExec(cmd.Context(), args[0], args[1])
			return err
		},
	}
	cmd.AddCommand(cancel)
	return cmd
}

func logsCommand() *cobra.Command {
	var at connection
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [flags] ID EXEC",
		Short: "Print the output of an exec; with -f until its program has ended, then exit with its code",
		Args:  cobra.ExactArgs(2),
		RunE: passingThrough(func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			if err := both(func(stream string) error { return copyOutput(cmd, c, args[0], args[1], stream, follow) }); err != nil || !follow {
				return err
			}
			e, err := c.ExecState(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if e.Result == nil {
				return errors.New("the program came to nothing")
			}
			return sayEnd(cmd, *e.Result)
		}),
	}
	at.flags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the program has ended")
	return cmd
}

// both does what is to be done with each stream, at the same time.
func both(f func(stream string) error) error {
	var all sync.WaitGroup
	var errs [2]error
	for i, stream := range []string{sandbox.Stdout, sandbox.Stderr} {
		all.Go(func() { errs[i] = f(stream) })
	}
	all.Wait()
	return errors.Join(errs[:]...)
}

func copyOutput(cmd *cobra.Command, c *client.Client, id, execID, stream string, follow bool) error {
	to := cmd.OutOrStdout()
	if stream == sandbox.Stderr {
		to = cmd.ErrOrStderr()
	}
	if follow {
		return c.FollowExec(cmd.Context(), id, execID, stream, 0, to)
	}
	o, err := c.ExecOutput(cmd.Context(), id, execID, stream, 0, 0)
	if err != nil {
		return err
	}
	defer o.Close()
	_, err = io.Copy(to, o)
	return err
}
