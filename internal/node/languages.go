package node

import (
	"cmp"
	_ "embed"
	"slices"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/service"
)

// language is how code of a language is run.
type language struct {
	programs []string // that the image must have
	before   []string // what comes before the path of the code's file
	file     string
	scratch  bool                   // a folder of the exec's own comes before that path: it is compiled
	warms    bool                   // its interpreter can be started before its program is there: it opens the file once, and reads it to its end
	plain    func(code string) bool // of a program that all the same can't be read so; nil: there is none

	runsDeps bool // its compiler runs programs of dependencies
}

// A compiled program replaces the shell that compiled it, so how it ends is told exactly, and it has the exec's limits
// from the compiler's start. What the compiler said is shown where it failed: a program's stderr is its own.
var (
	//go:embed compile-go.sh
	compileGo string
	//go:embed compile-rust.sh
	compileRust string
	//go:embed run-compiled.sh
	runCompiled string
)

var languages = map[string]language{
	"python": {programs: []string{"python3"}, before: []string{"python3"}, file: "main.py", warms: true, plain: rereads},
	"node":   {programs: []string{"node"}, before: []string{"node"}, file: "main.js", warms: true},
	"bash":   {programs: []string{"bash"}, before: []string{"bash"}, file: "main.sh"},
	"go":     {programs: []string{"go", "sh"}, before: []string{"sh", "-c", compileGo}, file: "main.go", scratch: true},
	"rust":   {programs: []string{"rustc", "cc", "sh"}, before: []string{"sh", "-c", compileRust}, file: "main.rs", scratch: true, runsDeps: true},
}

// languageOf names the language of an exec's code: the sandbox's, where the exec names none.
func languageOf(b *box, e service.ExecSpec) string { return cmp.Or(e.Language, b.spec.Language) }

// code says how code of the language is run.
func (l language) code(r *agent.Run, text *string) {
	r.Code, r.FileName, r.Programs, r.Interpreter, r.Scratch = text, l.file, l.programs, slices.Clone(l.before), l.scratch
}
