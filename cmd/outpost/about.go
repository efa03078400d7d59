package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func whoamiCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use: "whoami", Short: "Print the namespace and the role of the credential", Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			who, err := c.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			where := who.Namespace
			if who.Role == sandbox.Operator {
				where = "all namespaces"
			}
			return printLine(cmd, who, fmt.Sprintf("%s of %s", who.Role, where))
		},
	}
	at.flags(cmd)
	return cmd
}

func usageCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use: "usage", Short: "Print the quota of the namespace, and what it has of it", Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			u, err := c.Usage(cmd.Context())
			if err != nil {
				return err
			}
			return printAnswer(cmd, u, func(w io.Writer) error {
				return table(w, []string{"OF", "USED", "LIMIT"}, [][]string{
					{"sandboxes", strconv.Itoa(u.Sandboxes.Used), strconv.Itoa(u.Sandboxes.Limit)},
					{"execs at once", strconv.Itoa(u.Execs.Used), strconv.Itoa(u.Execs.Limit)},
				})
			})
		},
	}
	at.flags(cmd)
	return cmd
}

func versionCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version of this program, and of the server where one answers", Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Client string  `json:"client"`
				Server *string `json:"server"` // null: none answers
			}{Client: version()}
			if c, err := at.open(); err == nil {
				if its, err := c.Version(cmd.Context()); err == nil {
					v.Server = &its
				}
			}
			return printAnswer(cmd, v, func(w io.Writer) error {
				server := "none answers"
				if v.Server != nil {
					server = *v.Server
				}
				_, err := fmt.Fprintf(w, "client %s\nserver %s\n", v.Client, server)
				return err
			})
		},
	}
	at.flags(cmd)
	return cmd
}
