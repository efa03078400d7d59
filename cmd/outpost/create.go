package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func createCommand() *cobra.Command {
	var at connection
	var name, preset, user, dir string
	var stateful, asJSON bool
	var labels, env []string
	var memoryMB, pids, diskMB, timeoutMS int
	var cpuCores float64
	cmd := &cobra.Command{
		Use:     "create [flags] LANGUAGE",
		Short:   "Create a sandbox and print its id",
		Example: `  id=$(outpost create --stateful python) && outpost exec "$id" step.py`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := sandbox.CreateRequest{Language: &args[0], Name: pointer(name), WorkingDir: pointer(dir)}
			if stateful {
				r.Mode = pointer(string(sandbox.Stateful))
			}
			limits := sandbox.LimitsRequest{MemoryMB: pointer(memoryMB), CPUCores: pointer(cpuCores), Pids: pointer(pids),
				DiskMB: pointer(diskMB), TimeoutMS: pointer(timeoutMS)}
			if limits != (sandbox.LimitsRequest{}) {
				r.ResourceLimits = &limits
			}
			if preset != "" || user != "" {
				r.Security = &sandbox.SecurityRequest{Preset: pointer(preset), User: pointer(user)}
			}
			for _, e := range env {
				k, v, _ := strings.Cut(e, "=")
				r.Env = append(r.Env, [2]string{k, v})
			}
			for _, l := range labels {
				k, v, _ := strings.Cut(l, ":")
				if r.Labels == nil {
					r.Labels = map[string]string{}
				}
				r.Labels[k] = v
			}
			c, err := at.open()
			if err != nil {
				return err
			}
			s, err := c.Create(cmd.Context(), r)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), s.ID)
			return err
		},
	}
	at.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&stateful, "stateful", false, "keep files and processes between execs")
	f.StringVar(&name, "name", "", "a name for people")
	f.StringArrayVar(&labels, "label", nil, "KEY:VALUE; may be repeated")
	f.StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE; may be repeated")
	f.StringVar(&preset, "preset", "", "development, standard or maximum security")
	f.StringVar(&user, "user", "", "user to run as: name, uid or uid:gid")
	f.StringVar(&dir, "working-dir", "", "absolute folder to run in")
	f.IntVar(&memoryMB, "memory-mb", 0, "memory limit in MiB")
	f.Float64Var(&cpuCores, "cpu-cores", 0, "CPU limit in cores, may be fractional")
	f.IntVar(&pids, "pids", 0, "limit of processes and threads")
	f.IntVar(&diskMB, "disk-mb", 0, "limit of written files in MiB")
	f.IntVar(&timeoutMS, "timeout-ms", 0, "limit of one exec")
	f.BoolVar(&asJSON, "json", false, "print the whole answer")
	return cmd
}
