package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func keyCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{Use: "key", Short: "Make, list and void API keys"}
	at.flags(cmd)
	cmd.AddCommand(keyCreate(&at), keyList(&at), &cobra.Command{
		Use: "rm ID...", Short: "Make keys void", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			return forEach(cmd.Context(), ids, cmd.OutOrStdout(), cmd.ErrOrStderr(), c.DeleteKey)
		},
	})
	return cmd
}

func keyCreate(at *connection) *cobra.Command {
	var role string
	var perMinute int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key for the namespace of --namespace; its secret is shown this once",
		Args:  cobra.ExactArgs(1),
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
			if asJSON {
				return printJSON(cmd.OutOrStdout(), k)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s, %s of %s; keep it, it is not shown again:\n", k.ID, k.Role, k.Namespace)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s$%s\n", k.Name, k.Secret)
			return err
		},
	}
	cmd.Flags().StringVar(&role, "role", string(sandbox.Write), "operator (every namespace), admin, write or read")
	cmd.Flags().IntVar(&perMinute, "rate-limit", 0, "calls a minute; 0 switches the limit off (default the server's)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole answer")
	return cmd
}

func keyList(at *connection) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the keys that you may manage", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.Keys(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), append([]sandbox.Key{}, all...))
			}
			var rows [][]string
			for _, k := range all {
				rows = append(rows, []string{k.ID, k.Name, k.Namespace, string(k.Role), age(k.CreatedAt.Time)})
			}
			return table(cmd.OutOrStdout(), []string{"ID", "NAME", "NAMESPACE", "ROLE", "AGE"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole rows")
	return cmd
}
