package main

import (
	"io"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

func killCommand() *cobra.Command {
	var at connection
	var signal string
	cmd := &cobra.Command{
		Use:   "kill [flags] ID PID...",
		Short: "Send a signal to processes of a stateful sandbox",
		Long: `Sends a signal to processes of a stateful sandbox, SIGTERM unless one is named: as -s KILL or -KILL,
with SIG before the name or without, or by its number, as -9.`,
		Example: "  outpost kill -9 sb_1f0c9a2b7d3e 12",
		Args:    asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := signalName(signal)
			if err != nil {
				return err
			}
			c, err := at.open()
			if err != nil {
				return err
			}
			pids := []int{}
			for _, arg := range args[1:] {
				pid, err := strconv.Atoi(arg)
				if err != nil {
					return wrongUsage("%s is no number of a process", arg)
				}
				if err := c.Signal(cmd.Context(), args[0], pid, name); err != nil {
					return err
				}
				pids = append(pids, pid)
			}
			return printAnswer(cmd, map[string]any{"signal": name, "pids": pids}, func(io.Writer) error { return nil })
		},
	}
	at.flags(cmd)
	cmd.ValidArgsFunction = completing(&at, -1, oneSandbox(runningStateful, processesOf))
	cmd.Flags().StringVarP(&signal, "signal", "s", "SIGTERM", "the signal, by name or number")
	return cmd
}

// signalName is the name that the API has for a signal, as kill(1) reads it: SIGKILL, KILL, kill or 9.
func signalName(said string) (string, error) {
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(said), "SIG")
	if n, err := strconv.Atoi(said); err == nil {
		name = unix.SignalName(syscall.Signal(n))
	}
	if unix.SignalNum(name) == 0 {
		return "", wrongUsage("there is no signal %s: name one as TERM, SIGTERM or 15", said)
	}
	return name, nil
}

var shortSignal = regexp.MustCompile(`^-([0-9]+|[A-Z][A-Z0-9]*)$`)

// spellSignal spells what kill(1) takes in short, -9 or -KILL, as the flag that it stands for.
func spellSignal(root *cobra.Command, args []string) []string {
	if cmd, _, err := root.Find(args); err != nil || cmd.Name() != "kill" {
		return args
	}
	spelt := append([]string{}, args...)
	for i, arg := range spelt {
		if arg == "--" || strings.HasPrefix(arg, sandbox.SandboxPrefix) {
			break
		}
		if m := shortSignal.FindStringSubmatch(arg); m != nil {
			spelt[i] = "--signal=" + m[1]
		}
	}
	return spelt
}
