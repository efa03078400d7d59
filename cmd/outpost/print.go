package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

const jsonFlag = "json"

// asJSON says whether programs read what the command prints.
func asJSON(cmd *cobra.Command) bool {
	yes, err := cmd.Flags().GetBool(jsonFlag)
	return err == nil && yes
}

// printAnswer prints what a command found: to programs v, to people what words writes.
func printAnswer(cmd *cobra.Command, v any, words func(io.Writer) error) error {
	if asJSON(cmd) {
		return printJSON(cmd.OutOrStdout(), v)
	}
	return words(cmd.OutOrStdout())
}

// printLine prints to people one line, to programs v.
func printLine(cmd *cobra.Command, v any, line string) error {
	return printAnswer(cmd, v, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, line)
		return err
	})
}

// printList prints rows: to programs an array of them, to people a table with the cells of each.
func printList[T any](cmd *cobra.Command, rows []T, header []string, cells func(T) []string) error {
	return printAnswer(cmd, append([]T{}, rows...), func(w io.Writer) error {
		var lines [][]string
		for _, r := range rows {
			lines = append(lines, cells(r))
		}
		return table(w, header, lines)
	})
}

// printJSON writes v for programs to read.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printJSONLine writes v as one of many that come one after the other, each on a line.
func printJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table writes lines of cells in columns.
func table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}
