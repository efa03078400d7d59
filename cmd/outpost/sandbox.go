package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

func getCommand() *cobra.Command {
	var at connection
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Print all that is known of a sandbox, as JSON",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			s, err := c.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), s)
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, nil))
	return cmd
}

func setCommand() *cobra.Command {
	var at connection
	var name string
	var labels []string
	var ttl, idle int
	cmd := &cobra.Command{
		Use:     "set [flags] ID",
		Short:   "Change name, labels and times of a sandbox",
		Example: `  outpost set --ttl-secs 7200 --label team:search sb_1f0c9a2b7d3e`,
		Args:    asUsed,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			r := sandbox.PatchRequest{Name: given(cmd, "name", name), TTLSecs: given(cmd, "ttl-secs", ttl), IdleTimeoutSecs: given(cmd, "idle-timeout-secs", idle)}
			if r.Labels, err = labelsOf(labels); err != nil {
				return err
			}
			if r.Name == nil && r.TTLSecs == nil && r.IdleTimeoutSecs == nil && r.Labels == nil {
				return wrongUsage("there is nothing to change: give --name, --label, --ttl-secs or --idle-timeout-secs")
			}
			c, err := at.open()
			if err != nil {
				return err
			}
			s, err := c.Patch(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return printLine(cmd, s, s.ID)
		},
	}
	at.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "a name for people")
	f.StringArrayVar(&labels, "label", nil, "KEY:VALUE, instead of the labels that it has; may be repeated")
	f.IntVar(&ttl, "ttl-secs", 0, "delete it so long after its creation; 0: never")
	f.IntVar(&idle, "idle-timeout-secs", 0, "delete it so long after its last use; 0: never")
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(anySandbox, nil))
	return cmd
}

// labelsOf reads KEY:VALUE.
func labelsOf(said []string) (labels map[string]string, err error) {
	for _, l := range said {
		k, v, pair := strings.Cut(l, ":")
		if _, twice := labels[k]; !pair || twice {
			return nil, wrongUsage("--label %s: want KEY:VALUE, each key once", l)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[k] = v
	}
	return labels, nil
}

func portCommand() *cobra.Command {
	var at connection
	cmd := group(&cobra.Command{Use: "port", Short: "List, publish and close ports of a stateful sandbox"})
	at.flags(cmd)
	list := &cobra.Command{
		Use: "ls ID", Short: "List the published ports of a sandbox", Args: asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.open()
			if err != nil {
				return err
			}
			s, err := c.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return printList(cmd, s.Ports, []string{"GUEST", "HOST", "PROTOCOL"}, func(p sandbox.Port) []string {
				return []string{strconv.Itoa(p.GuestPort), strconv.Itoa(p.HostPort), p.Protocol}
			})
		},
	}
	open := &cobra.Command{
		Use: "open ID GUEST[:HOST][/udp]", Short: "Publish a port, and print the host's port", Args: asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := portOf(args[1])
			if err != nil {
				return err
			}
			c, err := at.open()
			if err != nil {
				return err
			}
			p, err := c.OpenPort(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return printLine(cmd, p, strconv.Itoa(p.HostPort))
		},
	}
	shut := &cobra.Command{
		Use: "close ID GUEST[/udp]", Short: "Close a published port", Args: asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := portOf(args[1])
			if err != nil {
				return err
			}
			if r.HostPort != nil || r.GuestPort == nil {
				return wrongUsage("%s: name the port in the sandbox alone, as in outpost port close %s 8000", args[1], args[0])
			}
			c, err := at.open()
			if err != nil {
				return err
			}
			protocol := "tcp"
			if r.Protocol != nil {
				protocol = *r.Protocol
			}
			return c.ClosePort(cmd.Context(), args[0], *r.GuestPort, protocol)
		},
	}
	for _, one := range []*cobra.Command{list, open, shut} {
		one.ValidArgsFunction = completing(&at, -1, oneSandbox(runningStateful, nil))
		cmd.AddCommand(one)
	}
	return cmd
}
