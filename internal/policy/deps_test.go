package policy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

func depsOf(language string, deps ...string) (policy.Exec, error) {
	p := policy.Default()
	p.Images = map[string]string{"python": "x", "bash": "x", "node": "x", "go": "x", "rust": "x"}
	code := "1"
	return p.Exec(sandbox.ExecRequest{Code: &code, Deps: deps}, language, p.Defaults, nil)
}

func TestDepsAreNamesWithVersions(t *testing.T) {
	good := map[string][]string{
		"python": {"requests==2.32.3", "six", "Flask", "uvicorn[standard]==0.30.1", "a[b,c]", "numpy>=1.26,<3", "x~=1.4.2", "zope.interface!=5.0",
			"torch==2.3.0+cpu", "x==1!2.0", "x==1.*", "x===1.0-local", "apt:jq", "apt:libssl3t64=3.5.1-1+deb13u1", "apt:g++"},
		"node": {"lodash@4.17.21", "left-pad", "@types/node@20.1.0", "@a/b", "x@^1.2.3", "x@~1.2", "x@1.x", "x@latest", "x@>=1.0.0", "JSONStream@1.3.5", "socket.io@4", "x@1.0.0-rc.1+b", "apt:jq"},
		"go":   {"github.com/google/uuid@v1.6.0", "example.com/x", "gopkg.in/yaml.v3@v3.0.1", "example.com/x/v2@latest", "example.com/x@v0.0.0-20200101000000-abcdefabcdef", "apt:jq"},
		"rust": {"rand@0.8.5", "serde/derive@1.0.219", "tokio/rt/macros", "itoa", "serde_json@1", "x@^1.2", "x@=1.0.0", "x@~1", "x@*", "apt:jq"},
		"bash": {"apt:jq"},
	}
	for language, deps := range good {
		e, err := depsOf(language, deps...)
		if err != nil || len(e.Deps) != len(deps) {
			t.Errorf("%s: %q, %v", language, e.Deps, err)
		}
	}
	if e, err := depsOf("python", "six", "six"); err != nil || len(e.Deps) != 1 {
		t.Errorf("one twice: %q, %v", e.Deps, err)
	}
}

// TestDepsNameNothingButPackages: what reaches an installer must never be an option, a path, an address or two words.
func TestDepsNameNothingButPackages(t *testing.T) {
	bad := []string{
		"", " ", "-", "--index-url=http://127.0.0.1:1/", "-r/etc/passwd", "-e .", "-e.", "/etc", "./x", "../x", ".", "..", "~", "~/x",
		"six; touch /tmp/x", "$(touch /tmp/x)", "`id`", "six\n--no-deps", "six\r", "six\x00", "six ", " six", "six six", "six\t", "six\u00a0", "six\u2028x",
		"x @ file:///etc", "x@file:///etc", "x@file:.", "https://127.0.0.1/x.whl", "http://h/x", "//h/x", "git+https://127.0.0.1/x", "git@h:x/y",
		"x@git+ssh://h/x", "x@user/repo", "user/repo", "x@npm:y@1", "npm:y", "x@workspace:*", "x@link:.", "x.tgz", "x@y.tar.gz", "@s/x.tar", "C:x",
		"x;python_version<'3'", "x[a;b]==1", "x[-]=='1", "x==1 ,<2", "x==", "x@", "@x", "@/x", "@x/", "@-a/b", "x@-1", "x==-1", "-x@1", "x\\y", "x%2fy", "x#y", "x?y", "x&y",
		"apt:", "apt:-o=x", "apt:jq jq", "apt:jq,curl", "apt:jq=", "apt:../x", "apt:JQ", "apt:jq;x", "apt:jq=1 2", "apt:jq\n", "apt:jq/trixie", "apt:jq-",
		"go@1.22", "toolchain@go1.22", "example.com/x@none", "example.com/../x", "example.com/x@v1/..", "example.com/x@-v", "example.com//x",
		strings.Repeat("x", 257), "x==" + strings.Repeat("1", 300), "\u0455ix",
	}
	for _, language := range []string{"python", "node", "go", "rust", "bash"} {
		for _, dep := range bad {
			if dep == "user/repo" && language == "rust" || strings.HasPrefix(dep, "go@") && (language == "node" || language == "rust") || dep == "toolchain@go1.22" && language == "node" ||
				(dep == "x.tgz") && (language == "python" || language == "go") {
				continue // a name there, and nothing else
			}
			_, err := depsOf(language, dep)
			e, _ := errors.AsType[*sandbox.Error](err)
			if sandbox.CodeOf(err) != sandbox.Invalid || len(e.Details) != 1 || e.Details[0].Field != "deps[0]" {
				t.Errorf("%s: %q: %v", language, dep, err)
			}
		}
	}
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprintf("x%d", i)
	}
	if _, err := depsOf("python", many...); sandbox.CodeOf(err) != sandbox.Invalid {
		t.Errorf("65 of them: %v", err)
	}
}
