package main

import (
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

// createFlags are what `create` says beside machineFlags.
type createFlags struct {
	machineFlags
	name, user, dir                 string
	stateful                        bool
	labels, env, ports              []string
	memoryMB, pids, diskMB, timeout int
	ttlSecs, idleSecs, healthSecs   int
	cpuCores                        float64
	healthCommand, healthHTTP       string
	maxConcurrency, createWait      int
}

func createCommand() *cobra.Command {
	var at connection
	var c createFlags
	cmd := &cobra.Command{
		Use:   "create [flags] LANGUAGE",
		Short: "Create a sandbox and print its id",
		Example: `  id=$(outpost create --stateful python) && outpost exec "$id" step.py
  outpost create --stateful --port 8000 --ttl-secs 3600 node
  outpost create --egress allow --allow '*.example.com:443' python`,
		Args:              asUsed,
		ValidArgsFunction: cobra.FixedCompletions(values["language"], cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := c.request(cmd, args[0])
			if err != nil {
				return err
			}
			to, err := at.open()
			if err != nil {
				return err
			}
			var s sandbox.Sandbox
			err = awaitingImage(newProgress(cmd.ErrOrStderr()), r.CreateWaitSecs, func(secs *int) (err error) {
				r.CreateWaitSecs = secs
				s, err = to.Create(cmd.Context(), r)
				return err
			})
			if err != nil {
				return err
			}
			return printLine(cmd, s, s.ID)
		},
	}
	at.flags(cmd)
	c.flags(cmd)
	return cmd
}

func (c *createFlags) flags(cmd *cobra.Command) {
	c.machineFlags.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&c.stateful, "stateful", false, "keep files and processes between execs")
	f.StringVar(&c.name, "name", "", "a name for people")
	f.StringArrayVar(&c.labels, "label", nil, "KEY:VALUE; may be repeated")
	f.StringArrayVarP(&c.env, "env", "e", nil, envHelp)
	f.StringVar(&c.user, "user", "", "user to run as: name, uid or uid:gid")
	f.StringVar(&c.dir, "working-dir", "", "absolute folder to run in")
	f.IntVar(&c.memoryMB, "memory-mb", 0, "memory limit in MiB")
	f.Float64Var(&c.cpuCores, "cpu-cores", 0, "CPU limit in cores, may be fractional")
	f.IntVar(&c.pids, "pids", 0, "limit of processes and threads")
	f.IntVar(&c.diskMB, "disk-mb", 0, "limit of written files in MiB")
	f.IntVar(&c.timeout, "timeout-ms", 0, "time limit of one exec in milliseconds")
	f.StringArrayVarP(&c.ports, "port", "p", nil, "GUEST[:HOST][/udp], a port to publish; may be repeated")
	f.IntVar(&c.ttlSecs, "ttl-secs", 0, "delete it so long after its creation")
	f.IntVar(&c.idleSecs, "idle-timeout-secs", 0, "delete it so long after its last use")
	f.IntVar(&c.healthSecs, "health-interval-secs", 0, "time between two health checks")
	f.StringVar(&c.healthCommand, "health-command", "", "a shell command that exits 0 while it is well (with --stateful)")
	f.StringVar(&c.healthHTTP, "health-http", "", "PORT[/PATH] that answers 200 to 399 while it is well")
	f.IntVar(&c.maxConcurrency, "max-concurrency", 0, "execs at once (with --stateful)")
	f.IntVar(&c.createWait, "create-wait-secs", 0, "how long to wait for an image that must first be made; until it is, unless given")
}

func (c *createFlags) request(cmd *cobra.Command, language string) (sandbox.CreateRequest, error) {
	r := sandbox.CreateRequest{
		Language: &language, Name: given(cmd, "name", c.name), WorkingDir: given(cmd, "working-dir", c.dir),
		TTLSecs: given(cmd, "ttl-secs", c.ttlSecs), IdleTimeoutSecs: given(cmd, "idle-timeout-secs", c.idleSecs),
		MaxConcurrency: given(cmd, "max-concurrency", c.maxConcurrency), CreateWaitSecs: given(cmd, "create-wait-secs", c.createWait),
	}
	if c.stateful {
		r.Mode = pointer(string(sandbox.Stateful))
	}
	limits := sandbox.LimitsRequest{
		MemoryMB: given(cmd, "memory-mb", c.memoryMB), CPUCores: given(cmd, "cpu-cores", c.cpuCores), Pids: given(cmd, "pids", c.pids),
		DiskMB: given(cmd, "disk-mb", c.diskMB), TimeoutMS: given(cmd, "timeout-ms", c.timeout),
	}
	if limits != (sandbox.LimitsRequest{}) {
		r.ResourceLimits = &limits
	}
	c.fill(cmd, &r)
	if user := given(cmd, "user", c.user); user != nil {
		if r.Security == nil {
			r.Security = &sandbox.SecurityRequest{}
		}
		r.Security.User = user
	}
	r.Env = variables(c.env)
	var err error
	if r.Labels, err = labelsOf(c.labels); err != nil {
		return r, err
	}
	for _, text := range c.ports {
		p, err := portOf(text)
		if err != nil {
			return r, err
		}
		r.Ports = append(r.Ports, p)
	}
	return r, c.health(cmd, &r)
}

func (c *createFlags) health(cmd *cobra.Command, r *sandbox.CreateRequest) error {
	h := sandbox.HealthCheckRequest{IntervalSecs: given(cmd, "health-interval-secs", c.healthSecs)}
	if c.healthCommand != "" {
		h.Command = []string{"sh", "-c", c.healthCommand}
	}
	if c.healthHTTP != "" {
		number, path, _ := strings.Cut(c.healthHTTP, "/")
		p, err := portOf(number)
		if err != nil {
			return err
		}
		h.HTTP = &sandbox.HTTPCheckRequest{Port: p.GuestPort, Path: pointer("/" + path)}
	}
	if h.IntervalSecs != nil || h.Command != nil || h.HTTP != nil {
		r.HealthCheck = &h
	}
	return nil
}
