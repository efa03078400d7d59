package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/engine/microvm"
)

// finding is what doctor says of one engine, or of the making of images.
type finding struct {
	Name    string  `json:"name"`
	Usable  bool    `json:"usable"`
	Kernel  string  `json:"kernel,omitempty"`
	Cgroups string  `json:"cgroups,omitempty"`
	Checks  []check `json:"checks"`
}

type check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Required bool   `json:"required"`
	Found    string `json:"found"`
	Mend     string `json:"mend,omitempty"`
}

func doctorCommand() *cobra.Command {
	var leaks bool
	var dataDir string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can enforce, what is missing, and what mends it",
		Long:  "Looks at the host without changing it. Exits 1 if no engine is usable here.",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if leaks {
				return reportLeaks(cmd, cmp.Or(dataDir, os.Getenv("OUTPOST_DATA_DIR"), client.DefaultDataDir))
			}
			engines := []finding{ofEngine(container.Probe(cmd.Context())), ofEngine(microvm.Probe(cmd.Context(), monitorOf(config.MicroVM{VMM: "firecracker"})))}
			images, net := ofImages(cmd.Context()), ofNetwork()
			err := printAnswer(cmd, map[string]any{"engines": engines, "images": images, "network": net}, func(w io.Writer) error {
				return printFindings(w, append(engines, images, net))
			})
			if err != nil {
				return err
			}
			for _, e := range engines {
				if e.Usable {
					return nil
				}
			}
			return exitError(exitFailed)
		},
	}
	cmd.Flags().BoolVar(&leaks, "leaks", false, "list what carries the mark of --data-dir and belongs to no sandbox; exit 1 if anything")
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "data directory whose leaks to look for (OUTPOST_DATA_DIR; else "+client.DefaultDataDir+")")
	return cmd
}

func ofEngine(c engine.Capabilities) finding {
	f := finding{Name: c.Engine + " engine", Usable: c.Usable, Kernel: c.Kernel, Cgroups: c.Cgroups, Checks: []check{}}
	for _, x := range c.Checks {
		f.Checks = append(f.Checks, check(x))
	}
	return f
}

// withoutApt is what an operator writes where images can't be made of packages.
const withoutApt = `name images made elsewhere in the configuration file, for example images: {python: "oci-archive:/srv/python.tar", local_roots: [/srv]}`

// ofImages says whether the default images can be made here.
func ofImages(context.Context) finding {
	f := finding{Name: "default images", Usable: true}
	for _, program := range []string{"apt-get", "apt-cache"} {
		path, err := exec.LookPath(program)
		x := check{Name: program, OK: err == nil, Required: true, Found: path}
		if err != nil {
			f.Usable, x.Found, x.Mend = false, "not on this host", withoutApt
		}
		f.Checks = append(f.Checks, x)
	}
	return f
}

func printFindings(w io.Writer, all []finding) error {
	cut := func(text string) string { return text }
	if onTerminal(w) {
		cut = shorten
	}
	for _, f := range all {
		state := "usable"
		if !f.Usable {
			state = "NOT usable"
		}
		fmt.Fprintf(w, "%s: %s\n", f.Name, state)
		var rows [][]string
		for _, c := range f.Checks {
			mark, mend := "ok", ""
			if !c.OK {
				mark, mend = "missing", c.Mend
				if !c.Required {
					mark = "without"
				}
			}
			rows = append(rows, []string{"  " + mark, c.Name, cut(c.Found), mend})
		}
		if err := table(w, []string{"", "", "FOUND", "WHAT MENDS IT"}, rows); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return nil
}

// shorten keeps a table's cell readable.
func shorten(text string) string {
	const most = 48
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}
