package main

import "github.com/spf13/cobra"

// clientCommands are those that need no more than a server to speak to, or start one themselves.
func clientCommands() []*cobra.Command {
	return []*cobra.Command{
		runCommand(), execCommand(), createCommand(), lsCommand(), getCommand(), setCommand(), rmCommand(), stopCommand(), startCommand(), shellCommand(), cpCommand(), filesCommand(), portCommand(), psCommand(), killCommand(), execsCommand(), logsCommand(), jobCommand(), eventsCommand(), tokenCommand(), keyCommand(), whoamiCommand(), usageCommand(), versionCommand(),
		imageCommand(), demoCommand(), doctorCommand(), benchCommand(), bareCommand(), manCommand(),
	}
}

// group makes a command that only holds others: alone it shows its help, and what it has not is wrong usage.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return wrongUsage("%s has no command %q", cmd.CommandPath(), args[0])
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}
