package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func filesCommand() *cobra.Command {
	var at connection
	cmd := group(&cobra.Command{Use: "files", Short: "List, make and remove files of a stateful sandbox; cp copies them"})
	at.flags(cmd)
	on := func(use, short, example string, do func(cmd *cobra.Command, c *client.Client, at place) error) {
		cmd.AddCommand(&cobra.Command{
			Use: use, Short: short, Example: example, Args: asUsed, ValidArgsFunction: completing(&at, -1, oneSandbox(runningStateful, nil)),
			RunE: func(cmd *cobra.Command, args []string) error {
				id, name, _ := strings.Cut(args[0], ":")
				if name == "" && !strings.HasPrefix(use, "ls") {
					return wrongUsage("%s: name the path too, as in outpost files %s %s:PATH", args[0], cmd.Name(), id)
				}
				c, err := at.open()
				if err != nil {
					return err
				}
				return do(cmd, c, place{id, name})
			},
		})
	}
	on("ls ID[:PATH]", "List a folder, the working directory unless given", "  outpost files ls sb_1f0c9a2b7d3e:/var/log", func(cmd *cobra.Command, c *client.Client, at place) error {
		if at.path == "" {
			at.path = "."
		}
		all, err := c.ListFiles(cmd.Context(), at.id, at.path)
		if err != nil {
			return err
		}
		return printList(cmd, all, []string{"MODE", "TYPE", "SIZE", "MODIFIED", "NAME"}, func(f sandbox.FileInfo) []string {
			return []string{f.Mode, string(f.Type), strconv.FormatInt(f.Size, 10), f.ModifiedAt.String(), printable(f.Name)}
		})
	})
	on("mkdir ID:PATH", "Make a folder, and those above it", "  outpost files mkdir sb_1f0c9a2b7d3e:data/in", func(cmd *cobra.Command, c *client.Client, at place) error {
		return c.Mkdir(cmd.Context(), at.id, at.path)
	})
	on("rm ID:PATH", "Remove a file, or a folder with all that is in it", "  outpost files rm sb_1f0c9a2b7d3e:data", func(cmd *cobra.Command, c *client.Client, at place) error {
		return c.DeleteFile(cmd.Context(), at.id, at.path)
	})
	return cmd
}
