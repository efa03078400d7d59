package main

import (
	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func runCommand() *cobra.Command {
	var at connection
	var p program
	var preset string
	cmd := &cobra.Command{
		Use:   "run [flags] FILE|- [ARGUMENT...]",
		Short: "Run a program in a fresh sandbox, and pass its output and exit code through",
		Example: `  outpost run hello.py
  echo 'print(6*7)' | outpost run --language python -
  outpost run -l bash -c 'wc -l' -i < /etc/passwd`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := p.request(args, cmd.InOrStdin())
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
			result, err := c.Execute(cmd.Context(), inFreshMachine(r, preset))
			if err != nil {
				return err
			}
			return p.show(cmd, result)
		},
	}
	at.flags(cmd)
	p.flags(cmd)
	cmd.Flags().StringVar(&preset, "preset", "", "development, standard or maximum security")
	cmd.Flags().SetInterspersed(false) // what follows FILE is the program's
	return cmd
}

// inFreshMachine makes the execute call's request of an exec's.
func inFreshMachine(r sandbox.ExecRequest, preset string) sandbox.ExecuteRequest {
	x := sandbox.ExecuteRequest{
		Code: r.Code, Language: r.Language, Deps: r.Deps, TimeoutSecs: r.TimeoutSecs, ResourceLimits: r.ResourceLimits,
		Stdin: r.Stdin, StdinEncoding: r.StdinEncoding, Args: r.Args, Env: r.Env, User: r.User, WorkingDir: r.WorkingDir,
		Files: r.Files, OutputEncoding: r.OutputEncoding, MaxOutputBytes: r.MaxOutputBytes,
	}
	if preset != "" {
		x.Security = &sandbox.SecurityRequest{Preset: &preset}
	}
	return x
}
