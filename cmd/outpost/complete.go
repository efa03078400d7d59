package main

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

const (
	completionPatience = time.Second // a shell waits for what completes its line
	completionRows     = 100         // of a list, its first page
)

// offer gives what may stand in the place of a word, each with a description or none. Where it fails nothing is offered: there is nobody
// to tell.
type offer func(ctx context.Context, c *client.Client, args []string) ([]cobra.Completion, error)

// completing asks the server what may come next. Files are offered for arguments from the given one on; -1: never.
func completing(at *connection, files int, next offer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if files >= 0 && len(args) >= files {
			return nil, cobra.ShellCompDirectiveDefault
		}
		c, err := at.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(contextOf(cmd)), completionPatience)
		defer cancel()
		all, err := next(ctx, c, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

func contextOf(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

// sandboxes offers the ids that fit and stand on the line not yet. Those made last come first.
func sandboxes(fits func(sandbox.Sandbox) bool) offer {
	return func(ctx context.Context, c *client.Client, args []string) (all []cobra.Completion, err error) {
		page, err := c.List(ctx, client.ListOptions{PerPage: completionRows})
		for _, s := range page.Data {
			if fits(s) && !slices.Contains(args, s.ID) {
				all = append(all, cobra.CompletionWithDesc(s.ID, strings.Join(strings.Fields(s.Name+" "+s.Language+" "+string(s.Status)), " ")))
			}
		}
		return all, err
	}
}

func anySandbox(sandbox.Sandbox) bool { return true }

func runningStateful(s sandbox.Sandbox) bool {
	return s.Mode == sandbox.Stateful && s.Status == sandbox.Running
}

func startable(s sandbox.Sandbox) bool {
	return s.Mode == sandbox.Stateful && (s.Status == sandbox.Stopped || s.Status == sandbox.LostNow)
}

// oneSandbox offers an id as the first argument, and then what follows it; nil: nothing.
func oneSandbox(fits func(sandbox.Sandbox) bool, then offer) offer {
	return func(ctx context.Context, c *client.Client, args []string) ([]cobra.Completion, error) {
		switch {
		case len(args) == 0:
			return sandboxes(fits)(ctx, c, nil)
		case then != nil:
			return then(ctx, c, args)
		}
		return nil, nil
	}
}

// execsOf offers the execs of the sandbox that is the first argument.
func execsOf(ctx context.Context, c *client.Client, args []string) (all []cobra.Completion, err error) {
	if len(args) > 1 {
		return nil, nil
	}
	execs, err := c.Execs(ctx, args[0])
	for _, e := range execs {
		all = append(all, cobra.CompletionWithDesc(e.ID, string(e.Status)))
	}
	return all, err
}

// processesOf offers the processes of the sandbox that is the first argument.
func processesOf(ctx context.Context, c *client.Client, args []string) (all []cobra.Completion, err error) {
	processes, err := c.Processes(ctx, args[0])
	for _, p := range processes {
		if pid := strconv.Itoa(p.Pid); !slices.Contains(args[1:], pid) {
			all = append(all, cobra.CompletionWithDesc(pid, printable(strings.Join(p.Command, " "))))
		}
	}
	return all, err
}

// jobIDs offers the jobs that fit, of the newest.
func jobIDs(fits func(sandbox.Job) bool) offer {
	return func(ctx context.Context, c *client.Client, args []string) (all []cobra.Completion, err error) {
		jobs, err := c.Jobs(ctx, client.JobOptions{})
		for _, j := range jobs {
			if fits(j) && !slices.Contains(args, j.ID) {
				all = append(all, cobra.CompletionWithDesc(j.ID, string(j.Status)))
			}
		}
		return all, err
	}
}

func cancellable(j sandbox.Job) bool { return j.FinishedAt == nil }

func oneJob(ctx context.Context, c *client.Client, args []string) ([]cobra.Completion, error) {
	if len(args) > 0 {
		return nil, nil
	}
	return jobIDs(func(sandbox.Job) bool { return true })(ctx, c, args)
}

func keyIDs(ctx context.Context, c *client.Client, args []string) (all []cobra.Completion, err error) {
	keys, err := c.Keys(ctx)
	for _, k := range keys {
		if !slices.Contains(args, k.ID) {
			all = append(all, cobra.CompletionWithDesc(k.ID, printable(k.Name)))
		}
	}
	return all, err
}

func tokenIDs(ctx context.Context, c *client.Client, args []string) (all []cobra.Completion, err error) {
	tokens, err := c.Tokens(ctx)
	for _, t := range tokens {
		if !slices.Contains(args, t.ID) {
			all = append(all, cobra.CompletionWithDesc(t.ID, printable(t.Name)))
		}
	}
	return all, err
}

// completeCopy offers ID: where a word begins like one, or must be one because FROM is a file of this host; else files.
func completeCopy(at *connection) cobra.CompletionFunc {
	ids := completing(at, -1, sandboxes(runningStateful))
	return func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		begun := len(word) > 1 && strings.HasPrefix(sandbox.SandboxPrefix, word) || strings.HasPrefix(word, sandbox.SandboxPrefix)
		if len(args) == 1 && word == "" {
			_, there := remote(args[0])
			begun = !there
		}
		if !begun || strings.Contains(word, ":") {
			return nil, cobra.ShellCompDirectiveDefault
		}
		all, _ := ids(cmd, nil, word)
		for i, x := range all {
			id, about, _ := strings.Cut(x, "\t")
			all[i] = cobra.CompletionWithDesc(id+":", about)
		}
		return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// completeImages offers the images of a store that is there: completing makes none.
func completeImages(at *imageStore) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) (all []cobra.Completion, _ cobra.ShellCompDirective) {
		if _, err := os.Stat(imagesDir(cmp.Or(at.dataDir, os.Getenv("OUTPOST_DATA_DIR"), client.DefaultDataDir))); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := at.open()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.Close()
		images, _ := s.List()
		for _, i := range images {
			if !slices.Contains(args, i.Ref) {
				all = append(all, i.Ref)
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// values are the words that a flag can have, those that the contract names.
var values = map[string][]string{
	"language":        {"python", "node", "bash", "go", "rust"},
	"preset":          {"development", "standard", "maximum"},
	"egress":          {"none", "public", "allow"},
	"status":          {"creating", "running", "stopped", "failed", "lost"},
	"mode":            {"ephemeral", "stateful"},
	"role":            {"operator", "admin", "write", "read"},
	"signal":          {"SIGTERM", "SIGKILL", "SIGINT", "SIGHUP", "SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2"},
	"output-encoding": {"utf8", "base64"},
}

// completeFlags lets the flags of all commands complete: to their words, to folders and files where they name one, else to nothing.
func completeFlags(cmd *cobra.Command) {
	for name, words := range values {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // fails the second time
		}
	}
	for _, flags := range []func(string) error{cmd.MarkFlagDirname, cmd.MarkPersistentFlagDirname} {
		_, _ = flags("data-dir"), flags("server-dir") // where there is none, nothing
	}
	_, _ = cmd.MarkFlagFilename("config", "yaml", "yml"), cmd.MarkPersistentFlagFilename("config", "yaml", "yml")
	for _, c := range cmd.Commands() {
		completeFlags(c)
	}
}
