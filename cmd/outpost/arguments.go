package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// asUsed wants the arguments that the first line of the command's use names. One in brackets may be left out, one that ends in dots may
// come again.
func asUsed(cmd *cobra.Command, args []string) error {
	line, _, _ := strings.Cut(cmd.Use, "\n")
	var needed []string
	most := 0
	for _, name := range strings.Fields(line)[1:] {
		if name == "[flags]" {
			continue
		}
		optional := strings.HasPrefix(name, "[")
		if optional {
			name = strings.Trim(name, "[]")
		}
		bare, many := strings.CutSuffix(name, "...")
		if most++; many {
			most = len(args)
		}
		if !optional {
			needed = append(needed, bare)
		}
	}
	if cmd.HasParent() {
		line = cmd.Parent().CommandPath() + " " + line
	}
	switch {
	case len(args) < len(needed):
		return wrongUsage("there is no %s: %s", strings.Join(needed[len(args):], " and no "), line)
	case len(args) > most:
		return wrongUsage("%q is one argument too many: %s", args[most], line)
	}
	return nil
}
