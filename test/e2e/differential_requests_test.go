package e2e_test

import (
	"strings"

	"outpost.run/outpost/sandbox"
)

// shows prints where and as what a program runs.
const shows = `
import os, sys
print(sys.argv, sys.path[0], os.getcwd(), os.getresuid(), os.getresgid(), os.getgroups(), dict(os.environ))
for d in sorted({os.getcwd(), '/workspace', '/tmp', os.path.dirname(__file__)}):
	try: print(d if 'program-' not in d else 'scratch', sorted(os.listdir(d)) if 'program-' not in d and d != '/tmp' else '', oct(os.stat(d).st_mode), os.stat(d).st_uid, os.stat(d).st_gid, os.stat(d).st_nlink)
	except OSError as e: print(e)
s = os.lstat(__file__)
print(oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink)
`

const showsInNode = `
const fs = require('fs')
console.log(process.argv, process.cwd(), process.getuid(), process.getgid(), process.env, fs.readdirSync('.'), fs.readdirSync('/workspace'))
const s = fs.lstatSync(__filename)
console.log(s.mode, s.uid, s.gid)
`

// requestCases are sandboxes of each kind in which interpreters are started ahead.
func requestCases() (all []likeness) {
	for name, create := range map[string]sandbox.CreateRequest{
		"preset development":             {Security: &sandbox.SecurityRequest{Preset: new("development")}},
		"preset maximum":                 {Security: &sandbox.SecurityRequest{Preset: new("maximum")}},
		"root":                           {Security: &sandbox.SecurityRequest{User: new("root")}},
		"a user without a name":          {Security: &sandbox.SecurityRequest{User: new("1234:4321")}},
		"another user":                   {Security: &sandbox.SecurityRequest{User: new("nobody")}},
		"a variable":                     {Env: [][2]string{{"A", "b c=d"}, {"EMPTY", ""}}},
		"a folder below /workspace":      {WorkingDir: new("/workspace/a/b")},
		"a folder below /tmp":            {WorkingDir: new("/tmp/a")},
		"a folder of its own":            {WorkingDir: new("/srv/x/y")},
		"the home":                       {WorkingDir: new("/home/sandbox")},
		"a folder that can't be written": {WorkingDir: new("/etc")},
		"the library's folder":           {WorkingDir: new("/usr/lib/python3.13"), Security: &sandbox.SecurityRequest{Preset: new("development")}},
		"no egress":                      {Network: &sandbox.NetworkRequest{Egress: new("none")}},
		"a port":                         {Ports: []sandbox.PortRequest{{GuestPort: new(8000)}}},
	} {
		c := likeness{name: name, code: shows, create: create, masks: []mask{scratch}}
		switch name {
		case "a folder that can't be written", "the library's folder": // there the file can't lie, or it is another's
			c.starts = either
		}
		all = append(all, c)
		c.name, c.language, c.code = name+" in node", "node", showsInNode
		all = append(all, c)
	}
	return all
}

// plainCases come with something by which an interpreter goes before it reads its program.
func plainCases() (all []likeness) {
	execs := map[string]sandbox.ExecRequest{
		"arguments":                   {Args: []string{"a b", "", "-v"}},
		"a variable of the exec":      {Env: [][2]string{{"A", "1"}}},
		"PYTHON of the exec":          {Env: [][2]string{{"PYTHONOPTIMIZE", "2"}}},
		"another folder":              {WorkingDir: new("/workspace/sub")},
		"a folder that is new":        {WorkingDir: new("/workspace/neu/x")},
		"another user":                {User: new("root")},
		"the same user by number":     {User: new("1000")},
		"a command":                   {Command: []string{"sh", "-c", "ls -lan --time-style=+ /workspace; find /tmp /home /var/tmp -newer /etc/hostname; ps -e -o comm=; cat /workspace/* 2>&1"}},
		"python as a command":         {Command: []string{"python3", "-c", "import sys, os; print(sys.argv, os.listdir('.'))"}},
		"a command that is not there": {Command: []string{"no-such-command"}},
	}
	for name, text := range map[string]string{
		"main.py": "x = 1", "./main.py": "x = 1", "main.py/inner.py": "x = 1", "/workspace/main.py": "x = 1", "/usr/lib/python3.13/site-packages/x.py": "1",
		"/home/sandbox/.local/lib/python3.13/site-packages/usercustomize.py": "print('user site')", "../tmp/x": "1", "pyvenv.cfg": "home = /usr\n", ".python-version": "3.9", "package.json": `{"type": "module"}`,
	} {
		execs["a file "+name] = sandbox.ExecRequest{Files: map[string]sandbox.FileContent{name: sandbox.FileContent(text)}}
	}
	for name, exec := range execs {
		all = append(all, likeness{name: name, code: shows, exec: exec, starts: plain})
	}
	for name, exec := range map[string]sandbox.ExecRequest{
		"arguments":          {Args: []string{"a b", "--inspect", "-v"}},
		"NODE_OPTIONS":       {Env: [][2]string{{"NODE_OPTIONS", "--trace-uncaught"}}},
		"a module's package": {Files: map[string]sandbox.FileContent{"package.json": sandbox.FileContent(`{"type": "module"}`)}},
		"a package below":    {Files: map[string]sandbox.FileContent{"node_modules/p/package.json": sandbox.FileContent(`{"main": "m.js"}`), "node_modules/p/m.js": sandbox.FileContent("")}},
		"a file main.js":     {Files: map[string]sandbox.FileContent{"main.js": sandbox.FileContent("1")}},
		"a folder main.js":   {Files: map[string]sandbox.FileContent{"main.js/index.js": sandbox.FileContent("1")}},
	} {
		all = append(all, likeness{name: name + " in node", language: "node", code: showsInNode, exec: exec, starts: plain})
	}
	for _, pair := range [][2]string{
		{"PYTHONPATH", "/workspace/lib"}, {"PYTHONHASHSEED", "0"}, {"PYTHONUNBUFFERED", "1"}, {"PYTHONSTARTUP", "/workspace/s.py"}, {"PYTHONIOENCODING", "latin-1"}, {"PYTHONDONTWRITEBYTECODE", "1"},
		{"PYTHONOPTIMIZE", "1"}, {"PYTHONDEVMODE", "1"}, {"PYTHONWARNINGS", "error"}, {"PYTHONUTF8", "0"}, {"PYTHONSAFEPATH", "1"}, {"PYTHONHOME", "/nowhere"}, {"PYTHONVERBOSE", ""}, {"PYTHONINSPECT", "1"},
		{"LANG", "C"}, {"LC_ALL", "POSIX"}, {"LANGUAGE", "de"}, {"TZ", "Asia/Tokyo"}, {"MALLOC_ARENA_MAX", "1"}, {"GLIBC_TUNABLES", "glibc.malloc.check=3"}, {"LD_PRELOAD", "/no/such.so"}, {"LD_LIBRARY_PATH", "/workspace"},
		{"HOME", "/workspace"}, {"PATH", "/usr/bin:/workspace"}, {"LOCPATH", "/workspace"},
	} {
		code := "import sys, time, locale\nprint(hash('a') if sys.flags.hash_randomization == 0 else '', sys.flags, sys.path, sys.stdout.encoding, time.tzname, locale.getlocale())" + shows
		all = append(all, likeness{name: pair[0] + " of the sandbox", code: code, create: sandbox.CreateRequest{Env: [][2]string{pair}}, starts: plain})
	}
	for _, pair := range [][2]string{{"NODE_OPTIONS", "--stack-trace-limit=3"}, {"NODE_PATH", "/workspace/lib"}, {"NODE_NO_WARNINGS", "1"}, {"NODE_ENV", "production"}, {"UV_THREADPOOL_SIZE", "2"}, {"TZ", "Asia/Tokyo"}, {"SSL_CERT_FILE", "/x"}} {
		all = append(all, likeness{name: pair[0] + " of the sandbox in node", language: "node", code: showsInNode + "console.log(process.execArgv, Error.stackTraceLimit, new Date(0).toString(), module.paths)", create: sandbox.CreateRequest{Env: [][2]string{pair}}, starts: plain})
	}
	for name, code := range map[string]string{
		"another coding":                     "# coding: latin-1\nprint('ä')",
		"another coding in the second line":  "#!/usr/bin/python3\n# vim: set fileencoding=cp1252 :\nprint('ä')",
		"a coding behind a blank line":       " \t\f\n# coding=iso-8859-15\nprint('ä')",
		"a coding behind a CR":               "\r# coding: latin-1\rprint('ä')",
		"a coding behind a comment and a CR": "# x\r# coding: latin-1\rprint('ä')",
		"a coding behind a form feed":        "\f# coding: latin-1\nprint('ä')",
		"a coding that is not known":         "# coding: nothing\nprint('ä')",
		"a coding of two bytes":              "# coding: utf-16\nprint('ä')",
		"a coding by its other name":         "# coding: utf8\nprint('ä')\nx y",
		"a coding with a suffix":             "# coding: utf-8-sig\nprint('ä')",
		"a coding that rotates":              "# coding: rot13\ncevag('uryyb')",
		"a coding and much":                  "# coding: latin-1\n" + strings.Repeat("# ä\n", 100_000) + "print('ä'); undefined",
		"a zip archive":                      zipProgram,
		"the end of a zip archive":           "print('PK\x05\x06" + strings.Repeat("\x00", 18) + "')",
		"an old bytecode's number":           "o\r\nprint(1)",
		"a new bytecode's number":            "+\x0e\n",
	} {
		all = append(all, likeness{name: name, code: code, starts: plain})
	}
	return append(all,
		likeness{name: "a coding behind code", code: "x = 1\n# coding: latin-1\nprint('ä')", starts: either},
		likeness{name: "a null byte", code: "print(1)\n\x00", starts: plain},
		likeness{name: "a stateful sandbox", code: shows, create: sandbox.CreateRequest{Mode: new("stateful")}, starts: plain},
		likeness{name: "a disk", code: shows, create: sandbox.CreateRequest{DiskSizeGB: new(1)}, starts: plain},
		likeness{name: "bash in Python's sandbox", code: "ls -la --time-style=+ | tail -n +2; echo $0", exec: sandbox.ExecRequest{Language: new("bash")}, starts: plain},
		likeness{name: "node in Python's sandbox", code: "1", exec: sandbox.ExecRequest{Language: new("node")}, starts: plain},
		likeness{name: "lower limits", code: "import os; print(os.cpu_count())", exec: sandbox.ExecRequest{ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(64), Pids: new(30), DiskMB: new(64)}}, starts: either},
		likeness{name: "a user that is not there", code: "1", exec: sandbox.ExecRequest{User: new("nemo")}, starts: plain},
		likeness{name: "a file that can't be", code: "1", exec: sandbox.ExecRequest{Files: map[string]sandbox.FileContent{"/proc/x": sandbox.FileContent("1")}}, starts: plain},
		likeness{name: "files over the disk", code: "1", create: sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{DiskMB: new(16)}},
			exec: sandbox.ExecRequest{Files: map[string]sandbox.FileContent{"a": make(sandbox.FileContent, 2<<20), "b": make(sandbox.FileContent, 2<<20), "c": make(sandbox.FileContent, 2<<20)}}, starts: either},
	)
}

// zipProgram is a zip archive without compression, of a __main__.py whose checksum happens to be ASCII.
const zipProgram = "PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00!\x00Gi]C'\x00\x00\x00'\x00\x00\x00\x0b\x00\x00\x00__main__.pyprint('from the archive', __name__, 4)\nPK\x01\x02\x14\x00\x14\x00\x00\x00\x00\x00\x00\x00!\x00Gi]C'\x00\x00\x00'\x00\x00\x00\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00__main__.pyPK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x009\x00\x00\x00P\x00\x00\x00\x00\x00"
