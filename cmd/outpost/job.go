package main

import (
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func jobCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "job",
		Short: "Programs on the queue: they run at least once, whatever becomes of the server",
	})
	cmd.AddCommand(jobSubmitCommand(), jobLsCommand(), jobGetCommand(), jobLogsCommand(), jobCancelCommand(), jobKeyCommand())
	return cmd
}

func jobSubmitCommand() *cobra.Command {
	var at connection
	var p program
	var m machineFlags
	var sandboxID, callback, once string
	var attempts, priority int
	cmd := &cobra.Command{
		Use:   "submit [flags] FILE|- [ARGUMENT...]",
		Short: "Put a program on the queue and print its job's id",
		Example: `  id=$(outpost job submit nightly.py) && outpost job logs -f "$id"
  outpost job submit --max-attempts 3 --priority 5 -c 'print(1)'
  outpost job submit --sandbox sb_1f0c9a2b7d3e step.py`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := p.request(cmd, args)
			if err != nil {
				return err
			}
			x := inFreshMachine(cmd, r, &m)
			if sandboxID != "" {
				x.SandboxID = &sandboxID
			} else if x.Language == nil {
				x.Language = pointer("python")
			}
			x.OutputEncoding, x.MaxOutputBytes = nil, nil // people read it
			c, err := at.open()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if once != "" {
				ctx = client.Once(ctx, once)
			}
			j, err := c.Submit(ctx, sandbox.JobRequest{
				ExecuteRequest: x, MaxAttempts: given(cmd, "max-attempts", attempts), Priority: given(cmd, "priority", priority), CallbackURL: given(cmd, "callback-url", callback),
			})
			if err != nil {
				return err
			}
			return printLine(cmd, j, j.ID)
		},
	}
	at.flags(cmd)
	p.flags(cmd)
	m.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&sandboxID, "sandbox", "", "run it in that sandbox instead of in a fresh machine")
	f.IntVar(&attempts, "max-attempts", 1, "how often it is tried until it succeeds; an attempt that a crash cut off is repeated beyond that, up to 3 times")
	f.IntVar(&priority, "priority", 0, "-10 to 10; the highest begins first")
	f.StringVar(&callback, "callback-url", "", "where the job is posted when it has ended")
	f.StringVar(&once, "idempotency-key", "", "submitting again with the same key within a day, when the answer was lost, submits nothing more")
	f.SetInterspersed(false) // what follows FILE is the program's
	return cmd
}

func jobLsCommand() *cobra.Command {
	var at connection
	var o client.JobOptions
	var idsOnly bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the jobs of the namespace",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Jobs(cmd.Context(), o)
			if err != nil {
				return err
			}
			if idsOnly && !asJSON(cmd) {
				for _, j := range all {
					fmt.Fprintln(cmd.OutOrStdout(), j.ID)
				}
				return nil
			}
			return printList(cmd, all, []string{"ID", "STATUS", "ATTEMPTS", "PRIORITY", "SANDBOX", "EXIT", "AGE", "COMMAND"}, func(j sandbox.Job) []string {
				where, why := "-", "-"
				switch {
				case j.Error != nil:
					why = string(j.Error.Code)
				case j.ExitCode != nil:
					why = strconv.Itoa(*j.ExitCode)
				}
				if j.SandboxID != nil {
					where = *j.SandboxID
				}
				return []string{j.ID, string(j.Status), fmt.Sprintf("%d/%d", j.Attempts, j.MaxAttempts), strconv.Itoa(j.Priority), where, why, age(j.CreatedAt.Time), printable(j.Command)}
			})
		},
	}
	at.flags(cmd)
	f := cmd.Flags()
	f.StringVar((*string)(&o.Status), "status", "", "only those: queued, running, succeeded, failed, cancelled, timed_out")
	f.StringVar(&o.SandboxID, "sandbox", "", "only those in a sandbox")
	f.BoolVarP(&idsOnly, "quiet", "q", false, "print ids only, without --json")
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"queued", "running", "succeeded", "failed", "cancelled", "timed_out"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func jobGetCommand() *cobra.Command {
	var at connection
	var wait bool
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Print a job with its result, as JSON",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			get := c.Job
			if wait {
				get = c.AwaitJob
			}
			j, err := get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), j)
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneJob)
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until it has ended")
	return cmd
}

func jobLogsCommand() *cobra.Command {
	var at connection
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [flags] ID",
		Short: "Print the output of a job; with -f until it has ended, then exit with its program's code",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			var mu sync.Mutex
			told := 1
			begins := func(attempt int) { // each stream says it
				mu.Lock()
				defer mu.Unlock()
				if attempt > told {
					told = attempt
					fmt.Fprintf(cmd.ErrOrStderr(), "outpost: attempt %d\n", attempt)
				}
			}
			s := streams{cmd: cmd, follow: follow,
				part: func(stream string) (client.Output, error) { return c.JobOutput(cmd.Context(), args[0], stream, 0, 0) },
				whole: func(stream string, to io.Writer) error {
					return c.FollowJob(cmd.Context(), args[0], stream, to, begins)
				},
			}
			if err := s.print(); err != nil || !follow {
				return err
			}
			j, err := c.AwaitJob(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case j.Result != nil && (j.Status != sandbox.JobCancelled || j.Result.TerminationReason == sandbox.Cancelled):
				return endOf(cmd, *j.Result)
			case j.Error != nil:
				return sandbox.Errorf(j.Error.Code, nil, "%s", j.Error.Message)
			}
			return fmt.Errorf("the job ended as %s", j.Status)
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneJob)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job has ended")
	return passesThrough(cmd)
}

func jobCancelCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   "cancel ID...",
		Short: "Cancel jobs that wait, or kill the programs of those that run",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forAll(cmd, args, c.CancelJob)
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, jobIDs(cancellable))
	return cmd
}

func jobKeyCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   "callback-key",
		Short: "Print the key that the namespace's callbacks are signed with",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			key, err := c.CallbackKey(cmd.Context())
			if err != nil {
				return err
			}
			return printLine(cmd, sandbox.CallbackKey{Key: key}, key)
		},
	}
	at.flags(cmd)
	return cmd
}
