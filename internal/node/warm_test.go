package node_test

import (
	"testing"

	"outpost.run/outpost/internal/node"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// TestWhatMayRunInAnInterpreterThatWasStartedAhead is the table of what starts plain; that it must is what test/e2e proves.
func TestWhatMayRunInAnInterpreterThatWasStartedAhead(t *testing.T) {
	type pairs = [][2]string
	files := func(names ...string) (all []service.File) {
		for _, n := range names {
			all = append(all, service.File{Path: n})
		}
		return all
	}
	for _, tc := range []struct {
		name       string
		language   string // python unless given
		code       string
		mode       sandbox.Mode
		dir        string
		env, image pairs
		exec       service.ExecSpec
		warm       bool
	}{
		{name: "a program", warm: true},
		{name: "a program in node", language: "node", warm: true},
		{name: "a program in bash", language: "bash"},
		{name: "a program in go", language: "go"},
		{name: "in a stateful sandbox", mode: sandbox.Stateful},
		{name: "another language", exec: service.ExecSpec{Language: "node"}, warm: true},
		{name: "the same language, said", exec: service.ExecSpec{Language: "python"}, warm: true},
		{name: "the same user, said", exec: service.ExecSpec{User: "sandbox"}, warm: true},
		{name: "another user", exec: service.ExecSpec{User: "root"}},
		{name: "arguments", exec: service.ExecSpec{Args: []string{"x"}}, warm: true},
		{name: "input and patterns", exec: service.ExecSpec{Stdin: []byte("x"), Collect: []string{"*"}}, warm: true},
		{name: "a variable of the exec", exec: service.ExecSpec{Env: pairs{{"A", "1"}}}, warm: true},
		{name: "a variable of the sandbox", env: pairs{{"A", "1"}, {"NODES", "x"}, {"PATHS", "x"}}, warm: true},
		{name: "PYTHON…", env: pairs{{"PYTHONX", "1"}}}, {name: "NODE_…", language: "node", env: pairs{{"NODE_X", "1"}}}, {name: "LD_…", env: pairs{{"LD_X", "1"}}},
		{name: "LC_…", env: pairs{{"LC_ALL", "C"}}}, {name: "LANG", env: pairs{{"LANG", "C"}}}, {name: "LANGUAGE", env: pairs{{"LANGUAGE", "de"}}}, {name: "TZ", env: pairs{{"TZ", "UTC"}}},
		{name: "MALLOC_…", env: pairs{{"MALLOC_X", "1"}}}, {name: "GLIBC_TUNABLES", env: pairs{{"GLIBC_TUNABLES", "x"}}}, {name: "PATH", env: pairs{{"PATH", "/usr/bin"}}}, {name: "HOME", env: pairs{{"HOME", "/"}}},
		{name: "another folder", exec: service.ExecSpec{WorkingDir: "/workspace/x"}, warm: true},
		{name: "the same folder, said", exec: service.ExecSpec{WorkingDir: "/workspace"}, warm: true},
		{name: "files", exec: service.ExecSpec{Files: files("a.py", "b/c.txt", "b/main.py.txt", "main_test.py")}, warm: true},
		{name: "a file in its place", exec: service.ExecSpec{Files: files("main.py")}},
		{name: "a folder in its place", exec: service.ExecSpec{Files: files("main.py/x")}},
		{name: "its place, spelled otherwise", exec: service.ExecSpec{Files: files("./main.py")}},
		{name: "a file elsewhere", exec: service.ExecSpec{Files: files("/etc/x")}},
		{name: "a file above", exec: service.ExecSpec{Files: files("../x")}},
		{name: "a hidden file", exec: service.ExecSpec{Files: files(".x")}},
		{name: "a file in a hidden folder", exec: service.ExecSpec{Files: files("a/.x/y")}},
		{name: "a package", language: "node", exec: service.ExecSpec{Files: files("x/package.json")}},
		{name: "a place for packages", exec: service.ExecSpec{Files: files("lib/python3.13/site-packages/x.py")}},
		{name: "an environment", exec: service.ExecSpec{Files: files("pyvenv.cfg")}},
		{name: "files in a folder of the image's", dir: "/usr/lib/python3", exec: service.ExecSpec{Files: files("x.py")}},
		{name: "files below /tmp", dir: "/tmp/x", exec: service.ExecSpec{Files: files("x.py")}, warm: true},
		{name: "an image that says where to look", image: pairs{{"PYTHONPATH", "/workspace"}}, warm: true},
		{name: "an image that says where to look, and files", image: pairs{{"PYTHONPATH", "/workspace"}}, exec: service.ExecSpec{Files: files("sitecustomize.py")}},
		{name: "an image that says what it is, and files", image: pairs{{"PATH", "/usr/local/bin:/usr/bin"}, {"LANG", "C.UTF-8"}, {"PYTHON_VERSION", "3.13"}, {"GPG_KEY", "x"}}, exec: service.ExecSpec{Files: files("x.py")}, warm: true},
		{name: "an image whose path goes there, and files", image: pairs{{"PATH", "/usr/bin:/workspace/bin"}}, exec: service.ExecSpec{Files: files("bin/python3")}},
		{name: "an image whose path goes anywhere, and files", image: pairs{{"PATH", "/usr/bin:"}}, exec: service.ExecSpec{Files: files("python3")}},
		{name: "an image with options, and files", language: "node", image: pairs{{"NODE_OPTIONS", "-r ./x"}}, exec: service.ExecSpec{Files: files("x.js")}},
		{name: "a coding", code: "# coding: latin-1\n"}, {name: "the usual coding", code: "# coding: utf-8\n", warm: true}, {name: "no coding", code: "x = 1 # coding: latin-1\n", warm: true},
		{name: "a coding after a CR", code: "\r# coding: latin-1\r"}, {name: "a coding after CR LF", code: "# x\r\n# coding: latin-1\r\n"}, {name: "a coding in the third line", code: "\r\n\r\n# coding: latin-1", warm: true},
		{name: "a coding in the third line by CR", code: "##\r\r# coding: latin-1", warm: true}, {name: "a coding in the third line after both", code: "##\n\r# coding: latin-1", warm: true},
		{name: "a zip archive", code: "x PK\x05\x06 y"}, {name: "an old magic number", code: "o\r\n"}, {name: "another line end", code: "o\n", warm: true}, {name: "a long first line", code: "ox\r\n", warm: true},
		{name: "a coding in node", language: "node", code: "# coding: latin-1\n", warm: true},
	} {
		s := spec(sandbox.Ephemeral)
		s.Language, s.Env = "python", tc.env
		if tc.language != "" {
			s.Language = tc.language
		}
		if tc.mode != "" {
			s.Mode = tc.mode
		}
		if tc.dir != "" {
			s.WorkingDir = tc.dir
		}
		tc.exec.Code = &tc.code
		if warm := node.MayStartWarm(s, tc.image, tc.exec); warm != tc.warm {
			t.Errorf("%s: warm %v", tc.name, warm)
		}
	}
	if node.MayStartWarm(spec(sandbox.Ephemeral), nil, service.ExecSpec{Command: []string{"python3"}}) {
		t.Error("a command: warm")
	}
}
