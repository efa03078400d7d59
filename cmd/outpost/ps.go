package main

import (
	"cmp"
	"encoding/json"
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
			return printList(cmd, all, []string{"PID", "PPID", "USER", "AGE", "CPU", "MEMORY", "COMMAND"}, func(p sandbox.Process) []string {
				return []string{
					strconv.Itoa(p.Pid), strconv.Itoa(p.PPid), p.User, age(p.StartedAt.Time), fmt.Sprintf("%.2fs", float64(p.CPUMS)/1000),
					fmt.Sprintf("%.1f MiB", float64(p.MemoryBytes)/(1<<20)), printable(strings.Join(p.Command, " ")),
				}
			})
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(runningStateful, nil))
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
					return wrongUsage("%s is no number of a process", arg)
				}
				if err := c.Signal(cmd.Context(), args[0], pid, signal); err != nil {
					return err
				}
			}
			return nil
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(runningStateful, processesOf))
	cmd.Flags().StringVarP(&signal, "signal", "s", "SIGTERM", "the signal's name")
	return cmd
}

func execsCommand() *cobra.Command {
	var at connection
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
			return printList(cmd, all, []string{"ID", "STATUS", "BACKGROUND", "AGE"}, func(e sandbox.ExecState) []string {
				return []string{e.ID, string(e.Status), strconv.FormatBool(e.Background), age(e.StartedAt.Time)}
			})
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, nil))
	cancel := &cobra.Command{
		Use:   "cancel ID EXEC",
		Short: "Kill the program of an exec",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			e, err := c.CancelExec(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return printLine(cmd, e, e.ID)
		},
	}
	cancel.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, execsOf))
	cmd.AddCommand(cancel)
	return cmd
}

func logsCommand() *cobra.Command {
	var at connection
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [flags] ID EXEC",
		Short: "Print the output of an exec; with -f until its program has ended, then exit with its code",
		Long: `Prints the output of an exec; with -f until its program has ended, then exits with its code.
With --json each piece is a line {"stream":"stdout","data":"text"}, or "data":{"base64":"…"} where it
is no text, and the last line of -f {"result":{…}}.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
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
				return endOf(cmd, *e.Result)
			case e.Error != nil:
				return sandbox.Errorf(e.Error.Code, nil, "%s", e.Error.Message)
			}
			return errors.New("the program runs on")
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, execsOf))
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the program has ended")
	return passesThrough(cmd)
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
	out, log := s.cmd.OutOrStdout(), s.cmd.ErrOrStderr()
	if asJSON(s.cmd) {
		out, log = pieces{out, sandbox.Stdout}, pieces{out, sandbox.Stderr}
	}
	all.Go(func() { errs[0] = s.copy(sandbox.Stdout, out) })
	all.Go(func() { errs[1] = s.copy(sandbox.Stderr, log) })
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

// pieces writes each piece of a stream as a line of JSON.
type pieces struct {
	to     io.Writer
	stream string
}

// Write implements io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	line, err := json.Marshal(struct {
		Stream string              `json:"stream"`
		Data   sandbox.FileContent `json:"data"`
	}{p.stream, b})
	if err != nil {
		return 0, err
	}
	if _, err := p.to.Write(append(line, '\n')); err != nil { // at once: the other stream writes too
		return 0, err
	}
	return len(b), nil
}

// endOf is sayEnd, or a last line of JSON.
func endOf(cmd *cobra.Command, r sandbox.ExecResult) error {
	if !asJSON(cmd) {
		return sayEnd(cmd, r)
	}
	err := printJSONLine(cmd.OutOrStdout(), map[string]any{"result": r})
	if err == nil && r.ExitCode != 0 {
		err = exitError(r.ExitCode)
	}
	return err
}
