package main

import (
	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func runCommand() *cobra.Command {
	var at connection
	var p program
	var m machineFlags
	var wait int
	cmd := &cobra.Command{
		Use:   "run [flags] FILE|- [ARGUMENT...]",
		Short: "Run a program in a fresh sandbox, and pass its output and exit code through",
		Long: `Runs a program in a fresh sandbox, and passes its output through as it comes, and its exit code:
124 at its time limit, 137 at its memory limit, 128+n for signal n.
What goes wrong beside the program exits 125, wrong usage too. With --json the whole result is one
object on stdout, with the same exit code.`,
		Example: `  outpost run hello.py
  echo 'print(6*7)' | outpost run --language python -
  outpost run -l bash -c 'wc -l' < /etc/passwd`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p.live = true
			r, err := p.request(cmd, args)
			if err != nil {
				return err
			}
			if r.Language == nil {
				r.Language = pointer("python")
			}
			c, err := at.open()
			if err != nil {
				return err
			}
			x := inFreshMachine(cmd, r, &m)
			how := newProgress(cmd.ErrOrStderr())
			waiting := func(run func() (sandbox.ExecResult, error)) (r sandbox.ExecResult, err error) {
				err = awaitingImage(how, given(cmd, "create-wait-secs", wait), func(secs *int) (err error) {
					x.CreateWaitSecs = secs
					r, err = run()
					return err
				})
				return r, err
			}
			return p.runLive(cmd, func() (sandbox.ExecResult, error) {
				return waiting(func() (sandbox.ExecResult, error) { return c.Execute(cmd.Context(), x) })
			}, func(live client.Live) (sandbox.ExecResult, error) {
				live.Started = func(string, string) { how.end() } // the program's output has the terminal
				return waiting(func() (sandbox.ExecResult, error) { return c.ExecuteLive(cmd.Context(), x, live) })
			})
		},
	}
	at.flags(cmd)
	p.flags(cmd)
	p.outputFlag(cmd)
	m.flags(cmd)
	cmd.Flags().IntVar(&wait, "create-wait-secs", 0, "how long to wait for an image that must first be made; until it is, unless given")
	cmd.Flags().SetInterspersed(false) // what follows FILE is the program's
	return passesThrough(cmd)
}

// inFreshMachine makes the execute call's request of an exec's.
func inFreshMachine(cmd *cobra.Command, r sandbox.ExecRequest, m *machineFlags) sandbox.ExecuteRequest {
	box := sandbox.CreateRequest{ResourceLimits: r.ResourceLimits}
	m.fill(cmd, &box)
	return sandbox.ExecuteRequest{
		Code: r.Code, Language: r.Language, Deps: r.Deps, TimeoutSecs: r.TimeoutSecs, ResourceLimits: box.ResourceLimits,
		Stdin: r.Stdin, StdinEncoding: r.StdinEncoding, StdinOpen: r.StdinOpen, Args: r.Args, Env: r.Env, User: r.User, WorkingDir: r.WorkingDir,
		Files: r.Files, Collect: r.Collect, OutputEncoding: r.OutputEncoding, MaxOutputBytes: r.MaxOutputBytes,
		Image: box.Image, DiskSizeGB: box.DiskSizeGB, DiskMountPath: box.DiskMountPath, Security: box.Security, Network: box.Network,
	}
}
