package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func tokenCommand() *cobra.Command {
	var at connection
	cmd := group(&cobra.Command{Use: "token", Short: "Make, list and void personal access tokens"})
	at.flags(cmd)
	cmd.AddCommand(tokenCreate(&at), tokenList(&at), &cobra.Command{
		Use: "rm ID...", Short: "Make tokens void", Args: asUsed, ValidArgsFunction: completing(&at, -1, tokenIDs),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forEach(cmd, ids, c.DeleteToken)
		},
	})
	return cmd
}

func tokenCreate(at *connection) *cobra.Command {
	var days float64
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token with your namespace and role; it is shown this once",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			t, err := c.CreateToken(cmd.Context(), sandbox.TokenRequest{Name: &args[0], ExpiresInDays: &days})
			if err != nil {
				return err
			}
			if !asJSON(cmd) {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s, good until %s; keep it, it is not shown again:\n", t.ID, t.ExpiresAt)
			}
			return printLine(cmd, t, t.Token)
		},
	}
	cmd.Flags().Float64Var(&days, "days", 90, "days until it expires, may be fractional")
	return cmd
}

func tokenList(at *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "List your tokens", Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return printList(cmd, all, []string{"ID", "NAME", "NAMESPACE", "ROLE", "EXPIRES"}, func(t sandbox.Token) []string {
				return []string{t.ID, t.Name, t.Namespace, string(t.Role), t.ExpiresAt.String()}
			})
		},
	}
	return cmd
}
