package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// exitError ends the program with a code and without a word: what there is to say was said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// The exit codes of outpost itself. Commands that pass a program's code through have exitOwn for all failures of their own, wrong usage
// too: 1 and 2 may be the program's. Source of 125: docker run.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitOwn         = 125
	exitInterrupted = 130
)

// exitCodes is what the help says of them.
const exitCodes = `Exit codes: 0 it worked, 1 it failed, 2 wrong usage, 130 interrupted. The commands run, exec, shell
and logs -f exit with the program's own code (124 at its time limit, 137 at its memory limit, 128+n
for signal n), and with 125 for whatever goes wrong beside the program.`

// The codes that errors have with --json where the API gave none.
const (
	codeFailed      = "failed"
	codeUsage       = "wrong_usage"
	codeInterrupted = "interrupted"
)

const programsCode = "programs-code"

// passesThrough marks a command that exits with a program's code.
func passesThrough(cmd *cobra.Command) *cobra.Command {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[programsCode] = ""
	return cmd
}

// usageError is a command line that can't be meant so.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func wrongUsage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// execute runs a command line and gives the code to exit with. What went wrong it says on the command's stderr.
func execute(ctx context.Context, root *cobra.Command, args []string) int {
	began := false
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true } // flags and arguments fit by then
	root.SetArgs(spellSignal(root, args))
	cmd, err := root.ExecuteContextC(ctx)
	exit, isExit := errors.AsType[exitError](err)
	switch {
	case err == nil:
		return 0
	case isExit:
		return int(exit)
	case !began:
		err = usageError{err}
	}
	_, usage := errors.AsType[usageError](err)
	json := asJSON(cmd) || usage && slices.Contains(args, "--"+jsonFlag) // it may stand behind the fault
	sayError(cmd.ErrOrStderr(), json, "", err)
	if usage && !json {
		fmt.Fprintf(cmd.ErrOrStderr(), "  %s --help says more\n", cmd.CommandPath())
	}
	_, programs := cmd.Annotations[programsCode]
	switch {
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case programs:
		return exitOwn
	case usage:
		return exitUsage
	}
	return exitFailed
}

// toldError is an error as programs read it.
type toldError struct {
	sandbox.ErrorBody
	RetryAfterSecs int    `json:"retry_after_secs,omitempty"`
	ID             string `json:"id,omitempty"` // which of several things it is about
}

// sayError tells an error to people, or on one line to programs.
func sayError(w io.Writer, json bool, id string, err error) {
	if json {
		_ = printJSONLine(w, map[string]toldError{"error": told(id, err)}) // nobody hears that nobody hears
		return
	}
	if id != "" {
		id += ": "
	}
	fmt.Fprintf(w, "outpost: %s%s\n", id, inWords(err))
}

func told(id string, err error) toldError {
	t := toldError{ID: id, ErrorBody: sandbox.ErrorBody{Code: codeFailed, Message: err.Error()}}
	_, usage := errors.AsType[usageError](err)
	e, ofAPI := errors.AsType[*sandbox.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		t.Code, t.Message = codeInterrupted, "interrupted"
	case usage:
		t.Code = codeUsage
	case ofAPI:
		t.Code, t.Message, t.Details, t.RetryAfterSecs = e.Code, e.Message, e.Details, e.RetryAfterSecs
		if status, is := errors.AsType[*client.StatusError](err); is {
			t.RequestID = status.RequestID
		}
	}
	return t
}

// inWords tells an error, one of the API with every bad field on a line of its own.
func inWords(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	var e *sandbox.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	var b strings.Builder
	message, fields := e.Message, e.Details
	switch whole := sandbox.Faults(e.Details).Err(e.Code); {
	case len(fields) == 1 && strings.Contains(message, fields[0].Reason):
		fields = nil // there is nothing more to say
	case len(fields) > 1 && message == whole.(*sandbox.Error).Message:
		message = fmt.Sprintf("%d things are wrong", len(fields))
	}
	fmt.Fprintf(&b, "%s (%s", message, e.Code)
	var status *client.StatusError
	if errors.As(err, &status) && status.RequestID != "" {
		fmt.Fprintf(&b, ", %s", status.RequestID)
	}
	b.WriteString(")")
	for _, d := range fields {
		fmt.Fprintf(&b, "\n  %s: %s", d.Field, d.Reason)
	}
	if e.RetryAfterSecs > 0 {
		fmt.Fprintf(&b, "\n  try again in %d s", e.RetryAfterSecs)
	}
	switch e.Code {
	case sandbox.Unauthorized:
		b.WriteString("\n  the credential comes from --token, OUTPOST_TOKEN, or admin.token in the server's data directory")
	case sandbox.DiskFull, sandbox.FileTooLarge:
		b.WriteString("\n  how much that is, --disk-mb says: of outpost create for a sandbox, of outpost run for one program")
	case sandbox.BodyTooLarge:
		b.WriteString("\n  standard input, --file and the program go with the call: outpost cp takes what is larger into a stateful sandbox")
	case sandbox.Forbidden:
		b.WriteString("\n  the namespace comes from --namespace or OUTPOST_NAMESPACE")
	}
	return b.String()
}
