package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/internal/bench"
	"outpost.run/outpost/internal/host"
)

// benchFlags are what `bench` is told.
type benchFlags struct {
	at        connection
	serverDir string
	only      []string
	runs      int
	seconds   int
	machines  int
	full      bool
}

func benchCommand() *cobra.Command {
	var b benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this host beside the same programs started without isolation",
		Long: `Measures, through the API, what sandboxes cost on this host, in turns with bare: the same
program started by the image's own interpreter or compiler, through the mounted image, without
isolation. The client is pinned to one processor where there are two; the processor time that it
uses is stated, and subtracted where a row is compared. docs/benchmarks.md says how the figures
are made.

Groups, for --only:
` + benchGroups() + `
It uses the server that runs on --data-dir; without one, or with --server-dir, it starts servers
of its own, on one data directory one after the other, and makes the images that are missing. The
groups cold and burst need that. Progress goes to stderr.`,
		Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd) },
	}
	b.flags(cmd)
	return cmd
}

func (b *benchFlags) flags(cmd *cobra.Command) {
	b.at.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&b.serverDir, "server-dir", "", "start servers on this data directory, whatever else runs (default where none runs: outpost/bench in your cache folder)")
	f.StringSliceVar(&b.only, "only", nil, "groups to measure (default all)")
	f.IntVarP(&b.runs, "runs", "n", 100, "runs of a busy row; paced rows and compilers have a fifth")
	f.IntVar(&b.seconds, "seconds", 20, "length of the open loop; each side of a closed one has half")
	f.IntVar(&b.machines, "machines", 50, "idle machines of the group density")
	f.BoolVar(&b.full, "full", false, "1,000 runs, 60 seconds and 1,000 idle machines, unless they are given")
}

func benchGroups() string {
	var b strings.Builder
	for _, g := range bench.Groups {
		fmt.Fprintf(&b, "  %-9s %s\n", g.Name, g.Does)
	}
	return b.String()
}

func (b *benchFlags) run(cmd *cobra.Command) (err error) {
	o, err := b.options(cmd)
	if err != nil {
		return err
	}
	if o.Pinned, err = host.Pin(); err != nil {
		return err
	}
	if o.Pinned != nil {
		runtime.GOMAXPROCS(1) // it has no more
	}
	o.Freely = o.Pinned.Freely
	bare, err := newBareSide()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	o.Bare = bare.command
	report, err := bench.Run(cmd.Context(), o)
	return errors.Join(err, printAnswer(cmd, report, func(w io.Writer) error { return printReport(w, report) }))
}

func (b *benchFlags) options(cmd *cobra.Command) (o bench.Options, err error) {
	size := func(name string, given *int, full int) {
		if b.full && !cmd.Flags().Changed(name) {
			*given = full
		}
		if *given < 1 {
			err = errors.Join(err, wrongUsage("--%s must be at least 1", name))
		}
	}
	size("runs", &b.runs, 1000)
	size("seconds", &b.seconds, 60)
	size("machines", &b.machines, 1000)
	for _, g := range bench.Groups {
		if len(b.only) == 0 || slices.Contains(b.only, g.Name) {
			o.Groups = append(o.Groups, g.Name)
		}
	}
	for _, name := range b.only {
		if !slices.Contains(o.Groups, name) {
			err = errors.Join(err, wrongUsage("--only %s: there is no such group; outpost bench --help lists them", name))
		}
	}
	if err != nil {
		return o, err
	}
	o.Runs, o.Paced, o.Compiled = b.runs, max(1, b.runs/5), max(1, b.runs/5)
	o.Window, o.Machines = time.Duration(b.seconds)*time.Second, b.machines
	o.Log, o.Version = cmd.ErrOrStderr(), version()
	return o, b.server(&o)
}

// server is the one that runs, or how one is started.
func (b *benchFlags) server(o *bench.Options) error {
	// Connections are kept, or the figures would be those of connecting.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 1024
	keeping := client.WithHTTPClient(&http.Client{Transport: transport})

	dir := b.serverDir
	if dir == "" {
		c, err := b.at.open(keeping)
		if err == nil {
			o.Server = b.running(c)
			return nil
		}
		if b.at.url != "" || os.Getenv("OUTPOST_URL") != "" {
			return err
		}
		if dir, err = ownDataDir("bench"); err != nil {
			return err
		}
	}
	o.Start = func(ctx context.Context, languages, flags []string) (*bench.Server, error) {
		s, err := startServer(ctx, dir, terse{o.Log}, append(ownFlags(languages, o.Machines), flags...)...)
		if err != nil {
			return nil, err
		}
		c, err := client.New(s.Address(), s.token, keeping)
		if err != nil {
			return nil, errors.Join(err, s.stop(ctx))
		}
		return &bench.Server{Client: c, DataDir: dir, PID: s.cmd.Process.Pid, Stop: s.stop}, nil
	}
	return nil
}

// running is a server that others started. Its data directory says whether it is that of this host.
func (b *benchFlags) running(c *client.Client) *bench.Server {
	s := &bench.Server{Client: c}
	dir := cmp.Or(b.at.dataDir, os.Getenv("OUTPOST_DATA_DIR"), client.DefaultDataDir)
	local, err := client.FindLocal(dir)
	if err != nil || local.URL != c.Address() {
		return s
	}
	if _, err := os.ReadFile(filepath.Join(dir, "installation")); err == nil {
		s.DataDir, s.PID = dir, local.PID
	}
	return s
}

// ownFlags start a server with what is measured alone: no image but those that are needed, no bounds that are a
// service's to its users.
func ownFlags(languages []string, machines int) []string {
	flags := []string{"--rate-limit-per-minute", "0", "--stop-all", "--disk-overcommit", "1000",
		"--policy-quota-sandboxes", fmt.Sprint(max(1000, 2*machines)), "--policy-quota-concurrent-execs", "1000"}
	for _, language := range []string{"python", "bash", "node", "go", "rust"} {
		if !slices.Contains(languages, language) {
			flags = append(flags, "--images-"+language, "")
		}
	}
	return flags
}

// terse leaves out what a server tells of each call and sandbox.
type terse struct{ io.Writer }

func (w terse) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(" level=INFO ")) && !bytes.Contains(line, []byte("preparing an image")) {
		return len(line), nil
	}
	return w.Writer.Write(line)
}
