package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func tokenCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{Use: "token", Short: "Make, list and void personal access tokens"}
	at.flags(cmd)
	cmd.AddCommand(tokenCreate(&at), tokenList(&at), &cobra.Command{
		Use: "rm ID...", Short: "Make tokens void", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forEach(cmd.Context(), ids, cmd.OutOrStdout(), cmd.ErrOrStderr(), c.DeleteToken)
		},
	})
	return cmd
}

func tokenCreate(at *connection) *cobra.Command {
	var days float64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token with your namespace and role; it is shown this once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			t, err := c.CreateToken(cmd.Context(), sandbox.TokenRequest{Name: &args[0], ExpiresInDays: &days})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), t)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s, good until %s; keep it, it is not shown again:\n", t.ID, t.ExpiresAt)
			_, err = fmt.Fprintln(cmd.OutOrStdout(), t.Token)
			return err
		},
	}
	cmd.Flags().Float64Var(&days, "days", 90, "days until it expires, may be fractional")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole answer")
	return cmd
}

func tokenList(at *connection) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List your tokens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), append([]sandbox.Token{}, all...))
			}
			var rows [][]string
			for _, t := range all {
				rows = append(rows, []string{t.ID, t.Name, t.Namespace, string(t.Role), t.ExpiresAt.String()})
			}
			return table(cmd.OutOrStdout(), []string{"ID", "NAME", "NAMESPACE", "ROLE", "EXPIRES"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole rows")
	return cmd
}
