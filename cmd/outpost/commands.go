package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// clientCommands are those that need no more than a server to speak to, or start one themselves.
func clientCommands() []*cobra.Command {
	return []*cobra.Command{
		runCommand(), execCommand(), createCommand(), lsCommand(), rmCommand(), stopCommand(), startCommand(), shellCommand(), cpCommand(), psCommand(), killCommand(), execsCommand(), logsCommand(), jobCommand(), eventsCommand(), tokenCommand(), keyCommand(),
		imageCommand(), demoCommand(), doctorCommand(), benchCommand(), bareCommand(),
	}
}

// exitError ends the program with a code and without a word: what there is to say was said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// The exit codes of outpost itself. Where those of a program are passed through as they are, its own failures are exitOwn.
const (
	exitFailed      = 1
	exitOwn         = 125
	exitInterrupted = 130
)

// ownFailure is one of outpost's own, in a command that passes a program's exit code through.
type ownFailure struct{ error }

func (f ownFailure) Unwrap() error { return f.error }

// passingThrough tells outpost's own failures from a program's.
func passingThrough(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if _, is := errors.AsType[exitError](err); err == nil || is {
			return err
		}
		return ownFailure{err}
	}
}

// exitCode says err in words and gives the code to end with.
func exitCode(w io.Writer, err error) int {
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "outpost: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(w, "outpost: "+inWords(err))
	if _, own := errors.AsType[ownFailure](err); own {
		return exitOwn
	}
	return exitFailed
}

// inWords tells an error of the API with every bad field on a line of its own.
func inWords(err error) string {
	var e *sandbox.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s", e.Message, e.Code)
	var status *client.StatusError
	if errors.As(err, &status) && status.RequestID != "" {
		fmt.Fprintf(&b, ", %s", status.RequestID)
	}
	b.WriteString(")")
	for _, d := range e.Details {
		fmt.Fprintf(&b, "\n  %s: %s", d.Field, d.Reason)
	}
	if e.RetryAfterSecs > 0 {
		fmt.Fprintf(&b, "\n  try again in %d s", e.RetryAfterSecs)
	}
	switch e.Code {
	case sandbox.Unauthorized:
		b.WriteString("\n  the credential comes from --token, OUTPOST_TOKEN, or admin.token in the server's data directory")
	case sandbox.Forbidden:
		b.WriteString("\n  the namespace comes from --namespace or OUTPOST_NAMESPACE")
	}
	return b.String()
}

// printJSON writes v for programs to read.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table writes lines of cells in columns.
func table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}
