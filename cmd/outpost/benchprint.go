package main

import (
	"errors"
	"fmt"
	"io"

	"outpost.run/outpost/internal/bench"
)

// printReport shows a report to people: distributions, single figures, targets.
func printReport(w io.Writer, r bench.Report) error {
	on := fmt.Sprintf("Linux %s, %d CPUs, %d MB, cgroup %s", r.Host.Kernel, r.Host.CPUs, r.Host.MemoryMB, r.Host.Cgroups)
	if r.Host.Client != nil {
		on += fmt.Sprintf("; client on CPU %d", *r.Host.Client)
	}
	fmt.Fprintf(w, "%s; outpost %s\n", on, r.Version)
	err := errors.Join(printLatencies(w, r.Rows), printFigures(w, r.Rows), printTargets(w, r.Rows))
	if len(r.LeftOut) > 0 {
		fmt.Fprintln(w)
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(w, "left out: %s: %s\n", l.Group, l.Reason)
	}
	return err
}

func printLatencies(w io.Writer, rows []bench.Row) error {
	var cells [][]string
	for _, r := range rows {
		if r.Latency == nil {
			continue
		}
		p50, p99, warm := "–", "–", "–"
		if r.OverBare != nil {
			p50, p99 = fmt.Sprintf("%.2f", r.OverBare.P50), fmt.Sprintf("%.2f", r.OverBare.P99)
		}
		if r.WarmShare != nil {
			warm = fmt.Sprintf("%.0f %%", *r.WarmShare*100)
		}
		cells = append(cells, []string{r.Group, r.What, r.Language, r.Pace, fmt.Sprint(r.Runs), oneDigit(r.P50), oneDigit(r.P90),
			oneDigit(r.P99), oneDigit(r.Max), fmt.Sprintf("%.2f", r.ClientCPUMS), p50, p99, warm})
	}
	return section(w, []string{"GROUP", "WHAT", "LANGUAGE", "PACE", "RUNS", "P50 ms", "P90", "P99", "MAX", "CLIENT", "P50 x BARE", "P99 x BARE", "WARM"}, cells)
}

func printFigures(w io.Writer, rows []bench.Row) error {
	var cells [][]string
	for _, r := range rows {
		if r.Figure == nil {
			continue
		}
		bare, over := "–", "–"
		if r.Figure.Bare != nil {
			bare = oneDigit(*r.Figure.Bare)
		}
		if r.Figure.OverBare != nil {
			over = fmt.Sprintf("%.2f", *r.Figure.OverBare)
		}
		cells = append(cells, []string{r.Group, r.What, r.Language, r.Pace, fmt.Sprintf("%.2f", r.Figure.Value), r.Figure.Unit, bare, over})
	}
	if err := section(w, []string{"GROUP", "WHAT", "LANGUAGE", "PACE", "FIGURE", "UNIT", "BARE", "x BARE"}, cells); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Note != "" {
			fmt.Fprintf(w, "%s, %s: %s\n", r.Group, r.What, r.Note)
		}
	}
	return nil
}

func printTargets(w io.Writer, rows []bench.Row) error {
	var cells [][]string
	for _, r := range rows {
		for _, t := range r.Targets {
			bound, met := "at most", "missed"
			if t.Least {
				bound = "at least"
			}
			if t.Met {
				met = "met"
			}
			cells = append(cells, []string{r.Group, r.What, r.Language, r.Pace, t.What, fmt.Sprintf("%s %g", bound, t.Bound), fmt.Sprintf("%.2f", t.Is), met})
		}
	}
	return section(w, []string{"GROUP", "WHAT", "LANGUAGE", "PACE", "TARGET", "BOUND", "IS", ""}, cells)
}

func section(w io.Writer, header []string, cells [][]string) error {
	if len(cells) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return table(w, header, cells)
}

func oneDigit(v float64) string { return fmt.Sprintf("%.1f", v) }
