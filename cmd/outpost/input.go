package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
)

// input is what the program gets as its standard input, nil for nothing. Unless -i says otherwise that is a pipe or a file which this
// command was given, and never a terminal: who sits there would not know that a program waits.
func (p *program) input(cmd *cobra.Command) io.Reader {
	in := cmd.InOrStdin()
	switch {
	case p.inputTaken:
		return nil
	case cmd.Flags().Changed("stdin"):
		if p.stdin {
			return in
		}
		return nil
	case redirected(in):
		return in
	}
	return nil
}

// redirected says whether somebody put something else in the place of a terminal. /dev/null is a device too.
func redirected(in io.Reader) bool {
	f, is := in.(*os.File)
	if !is {
		return true
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice == 0
}
