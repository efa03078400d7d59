package node

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// An interpreter may be started before its program is known where nothing that comes with the program could have changed
// what the interpreter does before it reads it: see docs/decisions/0060. Everything else starts plain.

// warmFor says which interpreter the sandbox's next program most likely needs; nil: none is started ahead.
func warmFor(b *box) *agent.Warm {
	if !warmable(b, service.ExecSpec{}) || !languages[b.spec.Language].warms {
		return nil
	}
	none := ""
	w := program(b, service.ExecSpec{Code: &none}).Warm()
	return &w
}

// warmWith says as what a warm interpreter must have been started to run this program; nil: none may.
func warmWith(b *box, e service.ExecSpec) *agent.Warm {
	l := languages[e.Language]
	if e.Language == "" {
		l = languages[b.spec.Language]
	}
	if e.Code == nil || !l.warms || !warmable(b, e) || l.plain != nil && l.plain(*e.Code) {
		return nil
	}
	r := program(b, e)
	for _, f := range e.Files {
		if !harmless(f.Path, r.Dir, l) {
			return nil
		}
	}
	w := r.Warm()
	return &w
}

// warmable: it runs as the sandbox's user, no dependencies lie where interpreters look when they start, and no variable that they or
// their libraries go by is set by the client.
func warmable(b *box, e service.ExecSpec) bool {
	return b.spec.Mode == sandbox.Ephemeral && len(e.Deps) == 0 && (e.User == "" || e.User == b.spec.Security.User) && !slices.ContainsFunc(b.spec.Env, decides) && !slices.ContainsFunc(e.Env, decides)
}

// deciding are the variables, or how their names begin, by which an interpreter decides what it does when it starts.
var deciding = []string{"PYTHON", "NODE_", "NODE=", "LD_", "LC_", "LANG", "TZ=", "MALLOC_", "GLIBC_TUNABLES=", "PATH=", "HOME=", "OPENSSL_", "SSL_", "UV_", "XDG_"}

func decides(pair [2]string) bool {
	return slices.ContainsFunc(deciding, func(d string) bool { return strings.HasPrefix(pair[0]+"=", d) })
}

// harmless says of a file that comes with the program that no interpreter looks at it before it reads the program.
func harmless(name, dir string, l language) bool {
	if !within(dir, "/workspace") && !within(dir, "/tmp") || path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "..") {
		return false
	}
	base := path.Base(name)
	return base != l.file && base != "package.json" && base != "pyvenv.cfg" && !strings.Contains(name, "site-packages")
}

func within(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

// codingLine is a Python program's word on its encoding, in one of its first two lines. Source: PEP 263. Python seeks back
// in the file to read it anew.
var codingLine = regexp.MustCompile(`^[ \t\f]*#.*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)`)

func otherCoding(code string) bool {
	for range 2 {
		line, rest, _ := strings.Cut(code, "\n")
		if m := codingLine.FindStringSubmatch(line); m != nil {
			return strings.ToLower(strings.ReplaceAll(m[1], "_", "-")) != "utf-8"
		}
		code = rest
	}
	return false
}
