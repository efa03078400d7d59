package node

import (
	"slices"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/deps"
	"outpost.run/outpost/internal/image"
)

// language is how code of a language is run.
type language struct {
	programs []string // that the image must have
	before   []string // what comes before the path of the code's file
	file     string
	scratch  bool // a folder of the exec's own comes before that path: it is compiled
}

// A compiled program replaces the shell that compiled it, so how it ends is told exactly, and it has the exec's limits
// from the compiler's start. What the compiler said is shown where it failed: a program's stderr is its own.
const (
	compile = `s=$1 f=$2; shift 2; `
	execute = ` </dev/null >"$s/said" 2>&1 || { c=$?; cat "$s/said" >&2; exit $c; }; exec "$s/main" "$@"`
	// What go would note in the home, its telemetry, goes with the exec, and so does a cache that has the image's compiled
	// standard library where there is one (see image.GoCache); the user's own settings (GOCACHE, go env -w) hold.
	compileGo = compile + `d=` + image.GoCache + `; [ -e ` + deps.GoWork + ` ] && export GOWORK=` + deps.GoWork + ` GOMODCACHE=` + deps.GoModules + ` GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local d=` + deps.GoCache + `; : "${GOENV:=${XDG_CONFIG_HOME:-$HOME/.config}/go/env}"; ` +
		`mkdir -p "$s/cache" "$s/go/telemetry"; echo off >"$s/go/telemetry/mode"; ` +
		`if [ "$GOCACHE" ]; then :; elif [ -d "$d" ]; then export GOCACHE="$s/cache"; ` +
		`ln -s "$d"/* "$s/cache"; date +%s >"$s/cache/trim.txt"; ` +
		`elif ! mkdir -p "$HOME/.cache/go-build" 2>/dev/null; then export GOCACHE="$s/cache"; fi; ` +
		`XDG_CONFIG_HOME="$s" GOTMPDIR="$s" GOENV="$GOENV" go build -buildvcs=false -o "$s/main" "$f"` + execute
	compileRust = compile + `d=; [ -e ` + deps.RustFlags + ` ] && d=@` + deps.RustFlags + `; TMPDIR="$s" rustc $d --edition 2021 --crate-name main -o "$s/main" "$f"` + execute
)

var languages = map[string]language{
	"python": {programs: []string{"python3"}, before: []string{"python3"}, file: "main.py"},
	"node":   {programs: []string{"node"}, before: []string{"node"}, file: "main.js"},
	"bash":   {programs: []string{"bash"}, before: []string{"bash"}, file: "main.sh"},
	"go":     {programs: []string{"go", "sh"}, before: []string{"sh", "-c", compileGo, "go"}, file: "main.go", scratch: true},
	"rust":   {programs: []string{"rustc", "cc", "sh"}, before: []string{"sh", "-c", compileRust, "rust"}, file: "main.rs", scratch: true},
}

// code says how code of the language is run.
func (l language) code(r *agent.Run, text *string) {
	r.Code, r.FileName, r.Programs, r.Interpreter, r.Scratch = text, l.file, l.programs, slices.Clone(l.before), l.scratch
}
