package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func lsCommand() *cobra.Command {
	var at connection
	var o client.ListOptions
	var idsOnly bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the sandboxes of the namespace",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			all, err := c.All(cmd.Context(), o)
			if err != nil {
				return err
			}
			if idsOnly && !asJSON(cmd) {
				for _, s := range all {
					fmt.Fprintln(cmd.OutOrStdout(), s.ID)
				}
				return nil
			}
			return printList(cmd, all, []string{"ID", "NAME", "LANGUAGE", "MODE", "STATUS", "AGE"}, func(s sandbox.Sandbox) []string {
				return []string{s.ID, s.Name, s.Language, string(s.Mode), string(s.Status), age(s.CreatedAt.Time)}
			})
		},
	}
	at.flags(cmd)
	f := cmd.Flags()
	f.StringVar((*string)(&o.Status), "status", "", "only those: creating, running, stopped, failed, lost")
	f.StringVar(&o.Language, "language", "", "only those of a language")
	f.StringVar((*string)(&o.Mode), "mode", "", "only those: ephemeral, stateful")
	f.StringArrayVar(&o.Labels, "label", nil, "only those with KEY:VALUE; may be repeated")
	f.BoolVarP(&idsOnly, "quiet", "q", false, "print ids only, without --json")
	return cmd
}

// age is how long ago t was, in the largest unit that fits.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
