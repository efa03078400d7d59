package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func keyCommand() *cobra.Command {
	var at connection
	cmd := group(&cobra.Command{Use: "key", Short: "Make, list and void API keys"})
	at.flags(cmd)
	cmd.AddCommand(keyCreate(&at), keyList(&at), &cobra.Command{
		Use: "rm ID...", Short: "Make keys void", Args: asUsed, ValidArgsFunction: completing(&at, -1, keyIDs),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forEach(cmd, ids, c.DeleteKey)
		},
	})
	return cmd
}

func keyCreate(at *connection) *cobra.Command {
	var role string
	var perMinute int
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key for the namespace of --namespace; its secret is shown this once",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			r := sandbox.KeyRequest{Name: &args[0], Role: &role}
			if role != string(sandbox.Operator) {
				r.Namespace = pointer(c.Namespace())
			}
			if cmd.Flags().Changed("rate-limit") {
				r.RateLimit = &perMinute
			}
			k, err := c.CreateKey(cmd.Context(), r)
			if err != nil {
				return err
			}
			if !asJSON(cmd) {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s, %s of %s; keep it, it is not shown again:\n", k.ID, k.Role, k.Namespace)
			}
			return printLine(cmd, k, k.Name+"$"+k.Secret)
		},
	}
	cmd.Flags().StringVar(&role, "role", string(sandbox.Write), "operator (every namespace), admin, write or read")
	cmd.Flags().IntVar(&perMinute, "rate-limit", 0, "calls a minute; 0 switches the limit off (default the server's)")
	return cmd
}

func keyList(at *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "List the keys that you may manage", Args: asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Keys(cmd.Context())
			if err != nil {
				return err
			}
			return printList(cmd, all, []string{"ID", "NAME", "NAMESPACE", "ROLE", "AGE"}, func(k sandbox.Key) []string {
				return []string{k.ID, k.Name, k.Namespace, string(k.Role), age(k.CreatedAt.Time)}
			})
		},
	}
	return cmd
}
