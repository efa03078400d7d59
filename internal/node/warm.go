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
	unknown := ""
	return warmWith(b, service.ExecSpec{Code: &unknown})
}

// warmWith says as what a warm interpreter must have been started to run this program; nil: none may.
func warmWith(b *box, e service.ExecSpec) *agent.Warm {
	l := languages[languageOf(b, e)]
	if e.Code == nil || !l.warms || !warmable(b, e) || l.plain != nil && l.plain(*e.Code) {
		return nil
	}
	if len(e.Files) > 0 && slices.ContainsFunc(environment(b, nil), looksAround) {
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

// warmable: nothing but a program runs in the machine, as the sandbox's user, no dependencies lie where interpreters look when
// they start, and no variable that they or their libraries go by is set by the client.
func warmable(b *box, e service.ExecSpec) bool {
	return b.spec.Mode == sandbox.Ephemeral && b.spec.Health.Command == nil && len(e.Deps) == 0 && (e.User == "" || e.User == b.spec.Security.User) && !slices.ContainsFunc(b.spec.Env, decides) && !slices.ContainsFunc(e.Env, decides)
}

// deciding are the variables, or how their names begin, by which an interpreter decides what it does when it starts.
var deciding = []string{"PYTHON", "NODE_", "NODE=", "LD_", "LC_", "LANG", "LOCPATH=", "GCONV_PATH=", "TZ=", "MALLOC_", "GLIBC_TUNABLES=", "PATH=", "HOME=", "OPENSSL_", "SSL_", "UV_", "XDG_"}

func decides(pair [2]string) bool {
	return slices.ContainsFunc(deciding, func(d string) bool { return strings.HasPrefix(pair[0]+"=", d) })
}

// looksAround says of a variable of the image that an interpreter may look for files by it, other than where the image has
// them. Images say their interpreter's version and their language, too.
func looksAround(pair [2]string) bool {
	switch name := pair[0]; {
	case name == "PATH":
		return slices.ContainsFunc(strings.Split(pair[1], ":"), func(dir string) bool {
			return !path.IsAbs(dir) || within(path.Clean(dir), "/workspace") || within(path.Clean(dir), "/tmp")
		})
	case name == "LANG", name == "LANGUAGE", name == "TZ", strings.HasPrefix(name, "LC_"), strings.HasSuffix(name, "_VERSION"):
		return false
	}
	return decides(pair)
}

// harmless says of a file that comes with the program that no interpreter looks at it before it reads the program.
func harmless(name, dir string, l language) bool {
	if !within(dir, "/workspace") && !within(dir, "/tmp") || path.IsAbs(name) || path.Clean(name) != name || strings.HasPrefix(name, "..") {
		return false
	}
	base := path.Base(name)
	if strings.HasPrefix(name, ".") || strings.Contains(name, "/.") || strings.HasPrefix(name, l.file+"/") { // .python-version and the like; a folder in the program's place
		return false
	}
	return base != l.file && base != "package.json" && base != "pyvenv.cfg" && !strings.Contains(name, "site-packages")
}

func within(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

// rereads says of a Python program that Python looks at its file a second time, which it can't do in a fifo: its text would
// pass for another kind of program, or names its encoding. What is no such program after all starts plain for nothing.
func rereads(code string) bool { return mayBeZip(code) || mayBeCompiled(code) || otherCoding(code) }

// mayBeZip: a zip archive may begin with anything, but ends with a record that begins so, and Python runs the __main__.py in
// it. Source: APPNOTE.TXT 4.3.16; zipimport.
func mayBeZip(code string) bool { return strings.Contains(code, "PK\x05\x06") }

// mayBeCompiled: what begins with a magic number that was Python's is taken for bytecode, whatever its name. Those that are
// text have a control character at their second place. Source: pythonrun.c, maybe_pyc_file; pycore_magic_number.h.
func mayBeCompiled(code string) bool { return len(code) > 1 && '\v' < code[1] && code[1] < '\x10' }

// codingLine is a Python program's word on its encoding, in one of its first two lines. Source: PEP 263.
var codingLine = regexp.MustCompile(`^[ \t\f]*#.*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)`)

func otherCoding(code string) bool {
	for range 2 {
		line, rest := cutLine(code)
		if m := codingLine.FindStringSubmatch(line); m != nil {
			return strings.ToLower(strings.ReplaceAll(m[1], "_", "-")) != "utf-8"
		}
		code = rest
	}
	return false
}

// cutLine cuts the first line off, in whichever of the three ways it ends.
func cutLine(text string) (line, rest string) {
	i := strings.IndexAny(text, "\r\n")
	if i < 0 {
		return text, ""
	}
	return text[:i], strings.TrimPrefix(strings.TrimPrefix(text[i:], "\r"), "\n")
}
