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
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

func psCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   "ps ID",
		Short: "List the processes of a stateful sandbox",
		Args:  asUsed,
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

func execsCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   "execs ID",
		Short: "List the programs of a sandbox that run or ended in the last ten minutes",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Execs(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printList(cmd, all, []string{"ID", "STATUS", "EXIT", "BACKGROUND", "AGE", "COMMAND"}, func(e sandbox.ExecState) []string {
				exit := "-"
				switch {
				case e.ExitCode != nil:
					exit = strconv.Itoa(*e.ExitCode)
				case e.Error != nil:
					exit = string(e.Error.Code)
				}
				return []string{e.ID, string(e.Status), exit, strconv.FormatBool(e.Background), age(e.StartedAt.Time), printable(e.Command)}
			})
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, nil))
	wait := false
	get := &cobra.Command{
		Use:   "get ID EXEC",
		Short: "Print an exec with its result, as JSON",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			get := c.ExecState
			if wait {
				get = c.AwaitExec
			}
			e, err := get(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), e)
		},
	}
	get.Flags().BoolVarP(&wait, "wait", "w", false, "wait until it has ended")
	cancel := &cobra.Command{
		Use:   "cancel ID EXEC",
		Short: "Kill the program of an exec",
		Args:  asUsed,
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
	more := false
	stdin := &cobra.Command{
		Use:   "stdin [flags] ID EXEC",
		Short: "Give this command's standard input to a program that was started with exec -d --stdin-open",
		Long: `Gives this command's standard input to a program that was started with exec -d --stdin-open, as it comes
and as the program reads it. With its end the program's input ends too, unless --more is given.`,
		Example: `  exec=$(outpost exec -d --stdin-open sb_1f0c9a2b7d3e -- python3 -i)
  echo 'x = 6 * 7' | outpost execs stdin --more sb_1f0c9a2b7d3e $exec
  echo 'print(x)'  | outpost execs stdin sb_1f0c9a2b7d3e $exec
  outpost logs -f sb_1f0c9a2b7d3e $exec`,
		Args: asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			n, err := c.FeedExec(cmd.Context(), args[0], args[1], cmd.InOrStdin(), more)
			if err == nil && asJSON(cmd) {
				err = printJSON(cmd.OutOrStdout(), sandbox.StdinTaken{Bytes: n})
			}
			return err
		},
	}
	stdin.Flags().BoolVar(&more, "more", false, "leave the program's input open")
	for _, one := range []*cobra.Command{get, cancel, stdin} {
		one.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, execsOf))
		cmd.AddCommand(one)
	}
	return cmd
}

func logsCommand() *cobra.Command {
	var at connection
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [flags] ID EXEC",
		Short: "Print the output of an exec; with -f until its program has ended, then exit with its code",
		Long: `Prints the output of an exec; with -f until its program has ended, then exits with its code.
Without -f stdout is printed before stderr: which piece came first is not known.
With --json each piece is a line {"stream":"stdout","data":"text"}, or "data":{"base64":"…"} where it
is no text; where a stream was cut, {"stream":"stdout","cut":{"kept":n,"total":n}}; and the last line of -f
{"result":{…}}.`,
		Args: asUsed,
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

func (s streams) print() (err error) {
	var all sync.WaitGroup
	var errs [2]error
	out, log := s.cmd.OutOrStdout(), s.cmd.ErrOrStderr()
	if asJSON(s.cmd) {
		p := [2]*pieces{{to: out, stream: sandbox.Stdout}, {to: out, stream: sandbox.Stderr}}
		defer func() { err = cmp.Or(err, p[0].end(), p[1].end()) }()
		out, log = p[0], p[1]
	}
	if !s.follow {
		return cmp.Or(s.copy(sandbox.Stdout, out), s.copy(sandbox.Stderr, log))
	}
	all.Go(func() { errs[0] = s.copy(sandbox.Stdout, out) })
	all.Go(func() { errs[1] = s.copy(sandbox.Stderr, log) })
	all.Wait()
	return cmp.Or(errs[0], errs[1]) // both mostly say the same
}

func (s streams) copy(stream string, to io.Writer) error {
	err := s.read(stream, to)
	if cut, is := errors.AsType[*client.CutError](err); is {
		if asJSON(s.cmd) {
			_, err = fmt.Fprintf(s.cmd.OutOrStdout(), `{"stream":%q,"cut":{"kept":%d,"total":%d}}`+"\n", stream, cut.Kept, cut.Total)
		} else {
			_, err = fmt.Fprintf(s.cmd.ErrOrStderr(), "outpost: %s was cut: %d of %d bytes shown\n", stream, cut.Kept, cut.Total)
		}
	}
	return err
}

func (s streams) read(stream string, to io.Writer) error {
	if s.follow {
		return s.whole(stream, to)
	}
	o, err := s.part(stream)
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err = io.Copy(to, o); err == nil && o.Finished && o.Total > o.Next {
		err = &client.CutError{Kept: o.Next, Total: o.Total}
	}
	return err
}

// pieces writes each piece of a stream as a line of JSON. A character that a piece cuts in two goes with the next.
type pieces struct {
	to     io.Writer
	stream string
	rest   []byte // the beginning of a character
}

// Write implements io.Writer.
func (p *pieces) Write(b []byte) (int, error) {
	all := append(p.rest, b...)
	whole := service.WholeCharacters(all)
	p.rest = append([]byte{}, all[len(whole):]...)
	return len(b), p.line(whole)
}

// end writes what is left of a stream that ended within a character.
func (p *pieces) end() error {
	rest := p.rest
	p.rest = nil
	return p.line(rest)
}

func (p *pieces) line(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	line, err := json.Marshal(struct {
		Stream string              `json:"stream"`
		Data   sandbox.FileContent `json:"data"`
	}{p.stream, b})
	if err == nil {
		_, err = p.to.Write(append(line, '\n')) // at once: the other stream writes too
	}
	return err
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
