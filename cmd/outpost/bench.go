package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// benchProgram is what every exec of the bench runs.
const benchProgram = "print(1)"

// pace is how the bench spaces its calls.
type pace struct {
	Name  string
	Every time.Duration // 0: one after the other
}

// paces: a busy host hides what the first call after a rest costs, so both are measured.
var paces = []pace{{"busy", 0}, {"one each 200 ms", 200 * time.Millisecond}}

// measure is one row of the bench: how long one thing took, in milliseconds.
type measure struct {
	What     string   `json:"what"`
	Pace     string   `json:"pace"`
	Runs     int64    `json:"runs"`
	P50      float64  `json:"p50_ms"`
	P90      float64  `json:"p90_ms"`
	P99      float64  `json:"p99_ms"`
	Max      float64  `json:"max_ms"`
	OverBare *float64 `json:"over_bare"` // P50 as a multiple of the bare interpreter's at the same pace; nil where that is unknown
}

func benchCommand() *cobra.Command {
	var at connection
	var runs int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure create, exec and both together on this host",
		Long: `Measures, through the API, how long create, exec in an ephemeral sandbox, and execute
(create and exec together) of print(1) take; busy, and at one call each 200 ms. Beside
them stands the bare time of the image's own interpreter on this host where the server's
data directory can be read: the same program without isolation.

Without --url and without a server on --data-dir it starts one for itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if runs < 1 {
				return errors.New("--runs must be at least 1")
			}
			b := bench{runs: runs, log: cmd.ErrOrStderr()}
			rows, err := b.run(cmd.Context(), at)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			return printMeasures(cmd.OutOrStdout(), rows)
		},
	}
	at.flags(cmd)
	cmd.Flags().IntVarP(&runs, "runs", "n", 100, "runs of each measure when busy; a fifth of it when paced")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the figures as JSON, in milliseconds")
	return cmd
}

type bench struct {
	runs int
	log  io.Writer
}

func (b bench) run(ctx context.Context, at connection) (rows []measure, err error) {
	c, err := at.open()
	dataDir := cmp.Or(at.dataDir, os.Getenv("OUTPOST_DATA_DIR"), client.DefaultDataDir)
	if err != nil {
		if at.url != "" || os.Getenv("OUTPOST_URL") != "" {
			return nil, err
		}
		dir, dirErr := ownDataDir("bench")
		if dirErr != nil {
			return nil, dirErr
		}
		s, startErr := startServer(ctx, dir, b.log, "--rate-limit-per-minute", "0")
		if startErr != nil {
			return nil, startErr
		}
		defer func() {
			if stopErr := s.stop(ctx); err == nil {
				err = stopErr
			}
		}()
		c, dataDir = s.Client, dir
	}
	fmt.Fprintf(b.log, "bench: %s, %d runs each\n", c.Address(), b.runs)
	ref, err := waitForImage(ctx, c, b.log)
	if err != nil {
		return nil, err
	}
	for _, p := range paces {
		more, err := b.api(ctx, c, p)
		if err != nil {
			return nil, err
		}
		if bare, err := b.bare(ctx, dataDir, ref, p); err != nil {
			fmt.Fprintln(b.log, "bench:", err)
		} else {
			for i := range more {
				more[i].OverBare = pointer(more[i].P50 / bare.P50)
			}
			more = append([]measure{bare}, more...)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// waitForImage makes one sandbox, so that no measure holds an image's making, and tells its image.
func waitForImage(ctx context.Context, c *client.Client, log io.Writer) (ref string, err error) {
	for {
		s, err := c.Create(ctx, sandbox.CreateRequest{Language: pointer("python")})
		if err == nil {
			return s.Image, c.Delete(ctx, s.ID)
		}
		if sandbox.CodeOf(err) != sandbox.ImagePreparing {
			return "", err
		}
		fmt.Fprintln(log, "bench:", inWords(err))
		if err := pause(ctx, time.Second); err != nil {
			return "", err
		}
	}
}

// api measures the three calls at one pace.
func (b bench) api(ctx context.Context, c *client.Client, p pace) ([]measure, error) {
	create := func() (sandbox.Sandbox, error) {
		return c.Create(ctx, sandbox.CreateRequest{Language: pointer("python")})
	}
	var made []string
	created, err := b.measure(ctx, "create", p, func() error {
		s, err := create()
		made = append(made, s.ID)
		return err
	}, func() error { return c.Delete(ctx, made[len(made)-1]) })
	if err != nil {
		return nil, err
	}
	s, err := create()
	if err != nil {
		return nil, err
	}
	executed, err := b.measure(ctx, "exec", p, func() error {
		return checked(c.Exec(ctx, s.ID, sandbox.ExecRequest{Code: pointer(benchProgram)}))
	}, nil)
	if err != nil {
		return nil, err
	}
	if err := c.Delete(ctx, s.ID); err != nil {
		return nil, err
	}
	both, err := b.measure(ctx, "create+exec", p, func() error {
		return checked(c.Execute(ctx, sandbox.ExecuteRequest{Language: pointer("python"), Code: pointer(benchProgram)}))
	}, nil)
	return []measure{created, executed, both}, err
}

// checked refuses a result that is not the program's: a fast failure is no figure.
func checked(r sandbox.ExecResult, err error) error {
	if err == nil && (r.ExitCode != 0 || r.Stdout != "1\n") {
		err = fmt.Errorf("%q ended with %d (%s): %s%s", benchProgram, r.ExitCode, r.TerminationReason, r.Stdout, r.Stderr)
	}
	return err
}

// measure times once after once; after, if any, is not timed.
func (b bench) measure(ctx context.Context, what string, p pace, once, after func() error) (measure, error) {
	const longest, digits = int64(10 * time.Minute / time.Microsecond), 3
	m, histogram := measure{What: what, Pace: p.Name}, hdrhistogram.New(1, longest, digits)
	runs := b.runs
	if p.Every > 0 {
		runs = max(1, runs/5)
	}
	for n := range runs {
		if n > 0 && p.Every > 0 {
			if err := pause(ctx, p.Every); err != nil {
				return m, err
			}
		}
		began := time.Now()
		if err := once(); err != nil {
			return m, fmt.Errorf("%s, run %d: %w", what, n+1, err)
		}
		if err := histogram.RecordValue(max(1, time.Since(began).Microseconds())); err != nil {
			return m, err
		}
		if after != nil {
			if err := after(); err != nil {
				return m, err
			}
		}
	}
	at := func(percentile float64) float64 { return float64(histogram.ValueAtPercentile(percentile)) / 1000 }
	m.Runs, m.P50, m.P90, m.P99, m.Max = histogram.TotalCount(), at(50), at(90), at(99), float64(histogram.Max())/1000
	return m, nil
}

func printMeasures(w io.Writer, rows []measure) error {
	var cells [][]string
	ms := func(v float64) string { return fmt.Sprintf("%.1f", v) }
	for _, m := range rows {
		over := "–"
		if m.OverBare != nil {
			over = fmt.Sprintf("%.1f", *m.OverBare)
		}
		cells = append(cells, []string{m.What, m.Pace, fmt.Sprint(m.Runs), ms(m.P50), ms(m.P90), ms(m.P99), ms(m.Max), over})
	}
	return table(w, []string{"WHAT", "PACE", "RUNS", "P50 ms", "P90", "P99", "MAX", "x BARE"}, cells)
}
