package main

import (
	"cmp"
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
			ctx, id, execID := cmd.Context(), args[0], args[1]
			s := streams{cmd: cmd, follow: follow,
				part:  func(stream string) (client.Output, error) { return c.ExecOutput(ctx, id, execID, stream, 0, 0) },
				whole: func(stream string, to io.Writer) error { return c.FollowExec(ctx, id, execID, stream, 0, to) },
			}
			if err := s.print(); err != nil || !follow {
				return err
			}
			e, err := c.ExecState(ctx, id, execID)
			switch {
			case err != nil:
				return err
			case e.Result != nil:
				return sayEnd(cmd, *e.Result)
			case e.Error != nil:
				return sandbox.Errorf(e.Error.Code, nil, "%s", e.Error.Message)
			}
			return errors.New("the program runs on")
		}),
	}
	at.flags(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the program has ended")
	return cmd
}

// streams prints both streams of a program at the same time: what there is, or with follow all until its end.
type streams struct {
	cmd    *cobra.Command
	follow bool
	part   func(stream string) (client.Output, error)
	whole  func(stream string, to io.Writer) error
}

func (s streams) print() error {
	var all sync.WaitGroup
	var errs [2]error
	all.Go(func() { errs[0] = s.copy(sandbox.Stdout, s.cmd.OutOrStdout()) })
	all.Go(func() { errs[1] = s.copy(sandbox.Stderr, s.cmd.ErrOrStderr()) })
	all.Wait()
	return cmp.Or(errs[0], errs[1]) // both mostly say the same
}

func (s streams) copy(stream string, to io.Writer) error {
	if s.follow {
		return s.whole(stream, to)
	}
	o, err := s.part(stream)
	if err != nil {
		return err
	}
	defer o.Close()
	_, err = io.Copy(to, o)
	return err
}
