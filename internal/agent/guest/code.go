package guest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/cell"
	"outpost.run/outpost/sandbox"
)

// program says what to start; with code, its file is written first.
func (x *execution) program(run agent.Run) (cell.Program, error) {
	env := environment(x.who, run.Env)
	argv := slices.Clone(run.Argv)
	if run.Code != nil {
		var err error
		if argv, err = x.code(run); err != nil {
			return cell.Program{}, err
		}
	}
	argv = append(argv, run.Args...)
	return cell.Program{Paths: candidates(argv[0], env), Argv: argv, Env: env, Dir: run.Dir}, nil
}

// code puts the program's file in its place and answers the words that run it.
func (x *execution) code(run agent.Run) ([]string, error) {
	for _, name := range run.Programs {
		if !runnable(name, run.Env) {
			return nil, refuse(sandbox.LanguageRuntimeMissing, "", "the image has no %s: create a sandbox of that language, or with an image that has it", name)
		}
	}
	x.temporary = !run.KillRest
	argv := slices.Clone(run.Interpreter)
	if run.Scratch {
		if err := x.makeScratch(); err != nil {
			return nil, err
		}
		argv = append(argv, x.scratch)
	}
	var err error
	if x.file, err = x.putCode(run); err != nil {
		return nil, err
	}
	if run.HandOver && run.Scratch && path.Dir(x.file) == path.Clean(run.Dir) { // else its place differs each time, and compilers note it
		x.makeGate()
	}
	return append(argv, x.file), nil
}

// makeScratch makes a folder that is this exec's own.
func (x *execution) makeScratch() error {
	if x.scratch != "" {
		return nil
	}
	dir := "/tmp/program-" + rand.Text()[:12]
	err := as(x.who, func() error { return makePrivate(dir) })
	switch {
	case err == nil:
		x.scratch = dir
		return nil
	case full(err):
		return refuse(sandbox.DiskFull, "code", "the program does not fit on the sandbox's disk: raise resource_limits.disk_mb")
	}
	return refuse(sandbox.Invalid, "working_dir", "user %s can write neither there nor to /tmp: %s", x.who.name, reason(err))
}

// tidy removes what was made to run the program. It may be called twice.
func (x *execution) tidy() {
	if !x.temporary { // the machine goes with the exec
		return
	}
	x.temporary = false
	_ = as(x.who, func() error {
		if x.file != "" {
			_ = remove(x.file)
		}
		if x.scratch != "" {
			_ = removeTree(x.scratch)
		}
		return nil
	})
}

// putCode writes the program's file into the working directory, so that it finds its neighbours; under another name
// where the name is taken, and below /tmp where the user may not write.
func (x *execution) putCode(run agent.Run) (string, error) {
	stem, ext, _ := strings.Cut(run.FileName, ".")
	names := []string{path.Join(run.Dir, run.FileName)}
	for i := range 64 {
		names = append(names, path.Join(run.Dir, fmt.Sprintf("%s-%d.%s", stem, i+2, ext)))
	}
	put := func(name string) error {
		return as(x.who, func() error { return putFile(run.FileName, name, []byte(*run.Code), x.who, unix.O_EXCL) })
	}
	for _, name := range names {
		err := put(name)
		if err == nil {
			return name, nil
		}
		if r, ok := errors.AsType[*refusal](err); ok {
			return "", r
		}
		if !errors.Is(err, fs.ErrExist) {
			break // the directory can't be written
		}
	}
	if err := x.makeScratch(); err != nil {
		return "", err
	}
	name := path.Join(x.scratch, run.FileName)
	if err := put(name); err != nil {
		return "", refuse(sandbox.Invalid, "working_dir", "the program's file can't be written to %s: %s", run.Dir, reason(err))
	}
	return name, nil
}
