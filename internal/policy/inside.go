package policy

import (
	"strings"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// CheckFilePath notes what is wrong with the path of a call on files.
func CheckFilePath(name string, faults *sandbox.Faults) {
	checkPath("path", name, faults)
}

// Signal is the number of a signal by its name. Real-time signals have no names here.
func Signal(name *string, faults *sandbox.Faults) int {
	if name == nil {
		faults.Add("signal", "is required")
		return 0
	}
	n := unix.SignalNum(strings.ToUpper(*name))
	if n == 0 {
		faults.Add("signal", "is no signal: name one as SIGTERM")
	}
	return int(n)
}

// MaxTerminal is how many columns or rows a terminal may have.
const MaxTerminal = 4096

// CheckTerminalSize notes a size that no terminal has.
func CheckTerminalSize(field string, size sandbox.TerminalSize, faults *sandbox.Faults) {
	check := func(name string, n int) {
		if n < 1 || n > MaxTerminal {
			faults.Add(sandbox.Field(field, name), "must be an integer from 1 to %d", MaxTerminal)
		}
	}
	check("cols", size.Cols)
	check("rows", size.Rows)
}
