// Package plan is what the kernel lane tells the init inside its guest, and how that answers.
package plan

// File is where the guest's root disk carries the plan.
const File = "/etc/test-plan.json"

// Mark begins a line of the guest that is no test's output: Mark, a word, and its arguments.
const Mark = "\x1e"

// The words after Mark.
const (
	Kernel = "kernel" // RELEASE
	Begin  = "begin"  // NAME
	End    = "end"    // EXIT-CODE NAME
	Fatal  = "fatal"  // why the guest can't go on
	Done   = "done"
)

// Plan is what the guest runs.
type Plan struct {
	Runs []Run
	Env  []string // NAME=VALUE, for all of them
}

// Run is one test binary.
type Run struct {
	Name string
	Argv []string // absolute path first
	Dir  string
}
