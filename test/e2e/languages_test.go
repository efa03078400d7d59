package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

// says are programs that print their arguments and their input, a line each.
var says = map[string]string{
	"python": "import sys\nprint(*sys.argv[1:], sep='|')\nprint(sys.stdin.read())",
	"bash":   "IFS='|'; echo \"$*\"; cat; echo",
	"node":   "console.log(process.argv.slice(2).join('|')); console.log(require('fs').readFileSync(0, 'utf8'))",
	"go":     "package main\nimport (\"fmt\"; \"io\"; \"os\"; \"strings\")\nfunc main() { fmt.Println(strings.Join(os.Args[1:], \"|\")); b, _ := io.ReadAll(os.Stdin); fmt.Println(string(b)) }",
	"rust":   "use std::io::*;\nfn main() { println!(\"{}\", std::env::args().skip(1).collect::<Vec<_>>().join(\"|\")); let mut s = String::new(); stdin().read_to_string(&mut s).unwrap(); println!(\"{s}\"); }",
}

// roomy is enough for a compiler on a busy machine.
func roomy() *sandbox.LimitsRequest { return &sandbox.LimitsRequest{TimeoutMS: new(120_000)} }

func TestEachLanguageRunsInEachPreset(t *testing.T) {
	leakCheck(t, shared)
	for language, code := range says {
		for _, preset := range presets {
			t.Run(language+" in "+string(preset), func(t *testing.T) {
				r := in(preset)
				r.Language, r.Code, r.Args, r.Stdin, r.ResourceLimits = new(language), new(code), []string{"a b", "", "$x'\""}, new("ä\nin"), roomy()
				result, err := shared.Execute(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if out := clean(t, result); out != "a b||$x'\"\nä\nin" || result.Stderr != "" {
					t.Errorf("stdout %q, stderr %q", out, result.Stderr)
				}
			})
		}
	}
}

func TestEachLanguageRunsAsAnyUserAndLeavesNothing(t *testing.T) {
	leakCheck(t, shared)
	for language, code := range says {
		for _, user := range []string{"root", "sandbox", "65534", "1234:4321"} {
			t.Run(language+" as "+user, func(t *testing.T) {
				made := shared.box(t, sandbox.CreateRequest{Language: new(language), Mode: new("stateful"), ResourceLimits: roomy()})
				asRoot := func(script string) string {
					r, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"bash", "-c", script}, User: new("root")})
					if err != nil {
						t.Fatal(err)
					}
					return clean(t, r)
				}
				asRoot("touch /tmp/before /tmp/after; find / -xdev | sort >/tmp/before")
				for _, code := range []string{code, "nonsense("} {
					r, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &code, Args: []string{user}, User: &user})
					if err != nil {
						t.Fatal(err)
					}
					if code != "nonsense(" && clean(t, r) != user {
						t.Errorf("it printed %q", r.Stdout)
					}
				}
				kept := "nothing"
				if user == "root" && language == "go" { // go keeps what it compiled where it may
					kept = "/var/cache/go-build/.*"
				}
				if left := asRoot("find / -xdev | sort >/tmp/after; diff /tmp/before /tmp/after | grep '^[<>]' | grep -v '^> " + kept + "' || true"); left != "" {
					t.Errorf("the exec changed what lies in the sandbox:\n%s", left)
				}
			})
		}
	}
}

func TestEachLanguageEndsAsItsProgramDid(t *testing.T) {
	leakCheck(t, shared)
	goMain := func(body string) string {
		return "package main\nimport (\"os\"; \"syscall\")\nvar _, _ = os.Exit, syscall.Kill\nfunc main() { " + body + " }"
	}
	for _, tc := range []struct {
		name, language, code string
		exit                 int
		signal, stderr       string // stderr: what it holds
	}{
		{name: "an exit code", language: "node", code: "process.exit(3)", exit: 3},
		{name: "an exit code", language: "go", code: goMain("os.Exit(3)"), exit: 3},
		{name: "an exit code", language: "rust", code: "fn main() { std::process::exit(3) }", exit: 3},
		{name: "an uncaught error", language: "node", code: "throw new Error('boom')", exit: 1, stderr: "boom"},
		{name: "a panic", language: "go", code: goMain("panic(\"boom\")"), exit: 2, stderr: "panic: boom"},
		{name: "a panic", language: "rust", code: "fn main() { panic!(\"boom\") }", exit: 101, stderr: "boom"},
		{name: "its own signal", language: "node", code: "process.kill(process.pid, 'SIGSEGV'); setTimeout(() => {}, 60000)", exit: 139, signal: "SIGSEGV"},
		{name: "its own signal", language: "go", code: goMain("syscall.Kill(os.Getpid(), syscall.SIGKILL); select {}"), exit: 137, signal: "SIGKILL"},
		{name: "its own signal", language: "rust", code: "fn main() { std::process::abort() }", exit: 134, signal: "SIGABRT"},
		{name: "no program", language: "node", code: "function (", exit: 1, stderr: "SyntaxError"},
		{name: "no program", language: "go", code: "package main\nfunc main() { undefined() }", exit: 1, stderr: "main.go:2:15: undefined: undefined"},
		{name: "no program", language: "rust", code: "fn main() { undefined() }", exit: 1, stderr: "cannot find function `undefined`"},
		{name: "a warning is no word of the program", language: "rust", code: "fn main() { let x = 1; }", exit: 0},
		{name: "a module", language: "node", code: "import fs from 'node:fs'\nprocess.exit(typeof fs.readFileSync === 'function' ? 7 : 1)", exit: 7},
		{name: "a script", language: "node", code: "const fs = require('fs')\nprocess.exit(typeof fs.readFileSync === 'function' ? 7 : 1)", exit: 7},
	} {
		for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful} {
			t.Run(fmt.Sprintf("%s of %s in %s", tc.name, tc.language, mode), func(t *testing.T) {
				made := shared.box(t, sandbox.CreateRequest{Language: &tc.language, Mode: new(string(mode)), ResourceLimits: roomy()})
				r, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &tc.code})
				if err != nil {
					t.Fatal(err)
				}
				signal := ""
				if r.Signal != nil {
					signal = *r.Signal
				}
				if r.ExitCode != tc.exit || signal != tc.signal || r.Stdout != "" || !strings.Contains(r.Stderr, tc.stderr) || tc.stderr == "" && r.Stderr != "" {
					t.Errorf("exit_code %d, signal %q, stdout %q, stderr %q", r.ExitCode, signal, r.Stdout, r.Stderr)
				}
			})
		}
	}
}

func TestGoSeesWhatLiesBesideTheProgram(t *testing.T) {
	leakCheck(t, shared)
	for name, tc := range map[string]struct {
		code  string
		files map[string]string
		want  string
	}{
		"a module": {"package main\nimport \"m/lib\"\nfunc main() { println(1); lib.F() }",
			map[string]string{"go.mod": "module m\ngo 1.24\n", "lib/lib.go": "package lib\nimport \"fmt\"\nfunc F() { fmt.Println(\"lib\") }"}, "lib"},
		"a file to embed":            {"package main\nimport (_ \"embed\"; \"fmt\")\n//go:embed text\nvar s string\nfunc main() { fmt.Print(s) }", map[string]string{"text": "embedded"}, "embedded"},
		"what go notes in a program": {"package main\nimport (\"fmt\"; \"runtime/debug\")\nfunc main() { b, ok := debug.ReadBuildInfo(); fmt.Println(ok, b.Path) }", nil, "true command-line-arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			r := sandbox.ExecuteRequest{Language: new("go"), Code: &tc.code, ResourceLimits: roomy(), Files: map[string]sandbox.FileContent{}}
			for path, text := range tc.files {
				r.Files[path] = sandbox.FileContent(text)
			}
			result, err := shared.Execute(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if out := clean(t, result); out != tc.want {
				t.Errorf("%q, want %q", out, tc.want)
			}
		})
	}
}

func TestTheGoCommandFindsTheStandardLibraryCompiled(t *testing.T) {
	leakCheck(t, shared)
	const script = `cd "$(mktemp -d)"; printf 'package main\nimport "net/http"\nfunc main() { println(http.StatusText(200)) }' >m.go
go mod init m 2>&1 && go build -x -o m . 2>log; ./m; grep -c /compile log; go build -x . 2>&1 | grep -c /compile`
	for _, user := range []string{"sandbox", "root"} {
		r, err := shared.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("go"), Command: []string{"sh", "-c", script + "; true"}, User: &user, ResourceLimits: roomy()})
		if err != nil {
			t.Fatal(err)
		}
		if out := clean(t, r); out != "go: creating new go.mod: module m\ngo: to add module requirements and sums:\n\tgo mod tidy\n1\n0" || r.Stderr != "OK\n" {
			t.Errorf("%s: %q, %q", user, out, r.Stderr)
		}
	}
}

func TestACompilerHasTheLimitsOfItsExec(t *testing.T) {
	leakCheck(t, shared)
	// A table that rustc computes at compile time, in more memory and time than the sandbox has.
	const big = "const fn f() -> [u64; 1 << 22] { let mut a = [0; 1 << 22]; let mut i = 0; while i < 1 << 22 { a[i] = i as u64; i += 1 } a }\n" +
		"static A: [u64; 1 << 22] = f();\nfn main() { println!(\"{}\", A[7]) }"
	r, err := shared.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("rust"), Code: new(big),
		ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(48), TimeoutMS: new(120_000)}})
	if err != nil || !r.OOMKilled || r.ExitCode != 137 {
		t.Errorf("memory: %v, %+v", err, r)
	}
	r, err = shared.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("rust"), Code: new(strings.Replace(big, "println!", "loop {} ; println!", 1)),
		ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(1024), TimeoutMS: new(300)}})
	if err != nil || !r.TimedOut || r.ExitCode != 124 {
		t.Errorf("time: %v, %+v", err, r)
	}
}

func TestALanguageThatTheImageLacksIsRefused(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, sandbox.CreateRequest{})
	for _, language := range []string{"node", "go", "rust"} {
		_, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Language: &language, Code: new(says[language])})
		if sandbox.CodeOf(err) != sandbox.LanguageRuntimeMissing {
			t.Errorf("%s in Python's image: %v", language, err)
		}
	}
}
