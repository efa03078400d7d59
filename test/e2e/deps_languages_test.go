package e2e_test

import (
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestNodesDependencies(t *testing.T) {
	s, x := depsServer(t, withNpm)
	x.npm("greet", "1.0.0", map[string]string{"package.json": `{"name":"greet","version":"1.0.0","main":"i.js","bin":{"greet":"i.js"},"dependencies":{"@acme/name":"^1.0.0"},"scripts":{"postinstall":"echo made >made"}}`,
		"i.js": "#!/usr/bin/env node\nmodule.exports = () => console.log('hello', require('@acme/name'), require('fs').readFileSync(__dirname + '/made', 'utf8').trim())\nif (require.main === module) module.exports()\n"})
	x.npm("@acme/name", "1.0.1", map[string]string{"package.json": `{"name":"@acme/name","version":"1.0.1"}`, "index.js": "module.exports = 'world'\n"})
	first := s.executed(t, "node", "require('greet')(); console.log(require('child_process').execSync('greet').toString().trim())", "greet@1.0.0")
	if out := clean(t, first); out != "hello world made\nhello world made" {
		t.Errorf("it said %q", out)
	}
	if got := strings.Join(first.DepsResolved, " "); got != "@acme/name@1.0.1 greet@1.0.0" {
		t.Errorf("deps_resolved %s", got)
	}
	r, err := s.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("node"), Command: []string{"node", "--input-type=module", "-e", "import greet from 'greet'; greet()"}, Deps: []string{"greet@1.0.0"}, WorkingDir: new("/srv/deep/down")})
	if err != nil {
		t.Fatal(err)
	}
	if out := clean(t, r); out != "hello world made" {
		t.Errorf("imported, it said %q", out)
	}
	if _, err := s.execute(t, "node", "", "@acme/not-there@1.0.0"); sandbox.CodeOf(err) != sandbox.DepsFailed || !strings.Contains(err.Error(), "not-there") {
		t.Error(err)
	}
	b := s.box(t, sandbox.CreateRequest{Language: new("node"), Mode: new("stateful")})
	for _, deps := range [][]string{{"greet@1.0.0"}, nil} {
		r, err := s.Exec(t.Context(), b.ID, sandbox.ExecRequest{Code: new("require('greet')()"), Deps: deps})
		if err != nil {
			t.Fatal(err)
		}
		if out := clean(t, r); out != "hello world made" {
			t.Errorf("for good, it said %q", out)
		}
	}
}

func TestCompiledDependencies(t *testing.T) {
	if testing.Short() {
		t.Skip("compilers take their time")
	}
	s, x := depsServer(t, withGo, withCargo)
	x.module("greet.test/greet", "v1.0.0", map[string]string{"go.mod": "module greet.test/greet\n\ngo 1.20\n", "greet.go": "package greet\n\nfunc Name() string { return \"world\" }\n",
		"deep/deep.go": "package deep\n\nimport \"greet.test/other\"\n\nvar Word = other.Word\n"})
	x.module("greet.test/other", "v1.0.0", map[string]string{"go.mod": "module greet.test/other\n", "o.go": "package other\n\nconst Word = \"deep\"\n"})
	x.put("/go/greet.test/greet/@v/v1.0.0.mod", []byte("module greet.test/greet\n\ngo 1.20\n\nrequire greet.test/other v1.0.0\n"))
	x.module("greet.test/greet", "v1.0.0", map[string]string{"go.mod": "module greet.test/greet\n\ngo 1.20\n\nrequire greet.test/other v1.0.0\n",
		"greet.go": "package greet\n\nfunc Name() string { return \"world\" }\n", "deep/deep.go": "package deep\n\nimport \"greet.test/other\"\n\nvar Word = other.Word\n"})
	x.crate("greet", "1.0.0", map[string]string{"Cargo.toml": "[package]\nname = \"greet\"\nversion = \"1.0.0\"\nedition = \"2021\"\n", "src/lib.rs": "pub fn name() -> &'static str { env!(\"MADE\") }\n",
		"build.rs": "fn main() { println!(\"cargo:rustc-env=MADE=world\"); }\n"})
	kept := 0 // programs
	for _, tc := range []struct{ language, dep, code, resolved string }{
		{"go", "greet.test/greet@v1.0.0", "package main\n\nimport (\n\"fmt\"\n\"greet.test/greet\"\n\"greet.test/greet/deep\"\n)\n\nfunc main() { fmt.Println(greet.Name(), deep.Word) }\n", "greet.test/greet@v1.0.0 greet.test/other@v1.0.0"},
		{"rust", "greet@1.0.0", "fn main() { println!(\"{} deep\", greet::name()); }\n", "greet@1.0.0"},
	} {
		for n := range 2 {
			r := s.executed(t, tc.language, tc.code, tc.dep)
			if out := clean(t, r); out != "world deep" || strings.Join(r.DepsResolved, " ") != tc.resolved {
				t.Errorf("%s said %q with %q", tc.language, out, r.DepsResolved)
			}
			// What crates run while a program is compiled may ask the network, where there is one.
			if tc.language == "go" {
				kept = 1
			}
			s.compiled(t, kept)
			if n == 1 && r.Timings.DepsMS > 500 {
				t.Errorf("%s: found again in %.0f ms", tc.language, r.Timings.DepsMS)
			}
		}
		limits := &sandbox.LimitsRequest{MemoryMB: new(1024), TimeoutMS: new(60_000)}
		b := s.box(t, sandbox.CreateRequest{Language: &tc.language, ResourceLimits: limits, Network: &sandbox.NetworkRequest{Egress: new("none")}})
		kept++
		for range 2 {
			r, err := s.Exec(t.Context(), b.ID, sandbox.ExecRequest{Code: &tc.code, Deps: []string{tc.dep}})
			if err != nil {
				t.Fatal(err)
			}
			if out := clean(t, r); out != "world deep" {
				t.Errorf("%s without a network said %q", tc.language, out)
			}
			s.compiled(t, kept)
		}
		b = s.box(t, sandbox.CreateRequest{Language: &tc.language, Mode: new("stateful"), ResourceLimits: limits})
		for _, deps := range [][]string{{tc.dep}, nil} {
			r, err := s.Exec(t.Context(), b.ID, sandbox.ExecRequest{Code: &tc.code, Deps: deps})
			if err != nil {
				t.Fatal(err)
			}
			if out := clean(t, r); out != "world deep" {
				t.Errorf("%s for good said %q", tc.language, out)
			}
		}
	}
}

func TestDebianPackages(t *testing.T) {
	s, x := depsServer(t, withPip, withPip+",jq", "deb:trixie?include=jq,python3", "deb:trixie?include=jq")
	greeting(x, "1.0.0")
	const code = "import subprocess, greet; print(subprocess.check_output(['jq', '.a'], input='{\"a\": 7}', text=True).strip()); greet.main()"
	r := s.executed(t, "python", code, "apt:jq", "greet==1.0.0")
	if out := clean(t, r); out != "7\nhello from 1.0.0" || len(r.DepsResolved) != 2 || !strings.HasPrefix(r.DepsResolved[0], "apt:jq=1") {
		t.Errorf("it said %q with %q", out, r.DepsResolved)
	}
	if r := s.executed(t, "bash", "jq --version"); r.ExitCode != 127 {
		t.Errorf("a later exec has it unasked: %+v", r)
	}
	b := s.box(t, sandbox.CreateRequest{Language: new("bash"), Mode: new("stateful")})
	for _, deps := range [][]string{{r.DepsResolved[0]}, nil} {
		r, err := s.Exec(t.Context(), b.ID, sandbox.ExecRequest{Code: new("echo '{\"a\": 7}' | jq .a && dpkg-query -W jq >/dev/null"), Deps: deps})
		if err != nil {
			t.Fatal(err)
		}
		if out := clean(t, r); out != "7" {
			t.Errorf("for good, it said %q", out)
		}
	}
	for _, dep := range []string{"apt:jq=0.1", "apt:there-is-no-such-package"} {
		if _, err := s.execute(t, "bash", "true", dep); sandbox.CodeOf(err) != sandbox.DepsFailed {
			t.Errorf("%s: %v", dep, err)
		}
	}
}
