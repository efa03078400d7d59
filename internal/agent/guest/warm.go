package guest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/cell"
)

// warm is an interpreter that was started before its program is known. It was given the path at which the program's file
// will be, and there it finds a fifo: it has done all that it does before it reads a program, and waits in open(2) or
// read(2). Then the program's file takes the fifo's place and its text goes through the fifo, so that nothing was run in
// the interpreter which would not have been run otherwise (docs/decisions/0060).
type warm struct {
	program cell.Program
	name    string   // of the fifo, later of the program's file
	fifo    *os.File // its writing end
	spare   []string // empty files that keep places free
	used    bool     // the program's file has taken its place
}

// A file system gives a new file the lowest inode number that is free. The fifo has one while the program's file is made, and
// gives it back to the first file that the program makes: by their order a program would know. So spare files are made
// before the fifo, which go when the program comes with as many files or fewer; then all have the numbers that they would have
// without a fifo.
const spareFiles = 4

// warmUp lets the parked process become the interpreter, and answers when that waits.
func (x *execution) warmUp(b []byte, gone chan cell.Ended) error {
	var w agent.Warm
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	started, err := x.startWarm(w, gone)
	if err != nil {
		return err
	}
	return agent.WriteJSON(x.conn, agent.KindOK, agent.Place{UID: x.who.uid, GID: x.who.gid, Pid: x.process.Pid, Warm: started})
}

// startWarm is false where the process stays parked: what is wrong is said by the exec that finds it so.
func (x *execution) startWarm(w agent.Warm, gone chan cell.Ended) (bool, error) {
	for _, name := range w.Programs {
		if !runnable(name, w.Env) {
			return false, nil
		}
	}
	if makeDir("working_dir", w.Dir, x.who) != nil {
		return false, nil
	}
	name := path.Join(w.Dir, w.FileName)
	env := environment(x.who, w.Env)
	argv := append(append(slices.Clone(w.Interpreter), name), w.Args...)
	next := &warm{program: cell.Program{Paths: candidates(argv[0], env), Argv: argv, Env: env, Dir: w.Dir}, name: name}
	var fifo *os.File
	err := as(x.who, func() (err error) {
		if err = next.makeSpare(); err == nil {
			fifo, err = makeFifo(name)
		}
		if err != nil {
			next.removeSpare()
		}
		return err
	})
	if err != nil {
		return false, nil
	}
	defer fifo.Close()
	x.warm = next
	if err := x.process.Run(x.warm.program); err != nil {
		return false, err
	}
	return true, x.warm.awaitReader(fifo, gone)
}

// makeSpare makes the spare files, with the calling thread's rights.
func (w *warm) makeSpare() error {
	for range spareFiles {
		name := besides(w.name)
		f, err := create(name, unix.O_EXCL)
		if err != nil {
			return err
		}
		f.Close()
		w.spare = append(w.spare, name)
	}
	return nil
}

func (w *warm) removeSpare() {
	for _, name := range w.spare {
		_ = remove(name)
	}
	w.spare = nil
}

// besides is a hidden name in the same folder that nobody has.
func besides(name string) string {
	return path.Join(path.Dir(name), "."+path.Base(name)+"-"+rand.Text()[:8])
}

// makeFifo makes a fifo with the calling thread's rights, and gives a handle of it that can only be opened anew.
func makeFifo(name string) (*os.File, error) {
	dir, err := open(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := unix.Mknodat(int(dir.Fd()), path.Base(name), unix.S_IFIFO|0o600, 0); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(int(dir.Fd()), path.Base(name), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// awaitReader opens the writing end, which returns when the interpreter has opened the other one.
func (w *warm) awaitReader(fifo *os.File, gone chan cell.Ended) error {
	own := "/proc/self/fd/" + strconv.Itoa(int(fifo.Fd()))
	type opened struct {
		fd  int
		err error
	}
	there := make(chan opened, 1)
	go func() {
		fd, err := unix.Open(own, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		for err == unix.EINTR {
			fd, err = unix.Open(own, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		}
		there <- opened{fd, err}
	}()
	select {
	case o := <-there:
		if o.err != nil {
			return fmt.Errorf("open the fifo: %w", o.err)
		}
		if err := unix.SetNonblock(o.fd, true); err != nil {
			return err
		}
		w.fifo = os.NewFile(uintptr(o.fd), w.name)
		return nil
	case ended := <-gone:
		gone <- ended
		if fd, err := unix.Open(own, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil { // lets the other open return
			o := <-there
			unix.Close(fd)
			if o.err == nil {
				unix.Close(o.fd)
			}
		}
		return fmt.Errorf("the interpreter ended with %d before it had a program", ended.Code)
	}
}

// goOn gives the waiting interpreter its program.
func (x *execution) goOn(run agent.Run) error {
	if run.Code == nil {
		return errors.New("a warm interpreter for another program")
	}
	if err := as(user{}, func() error { return x.replaceFifo(run) }); err != nil { // the user made the fifo there
		return err
	}
	x.warm.used, x.file, x.temporary = true, x.warm.name, !run.KillRest
	if err := agent.WriteFrame(x.conn, agent.KindBegin, nil); err != nil {
		return err
	}
	fifo := x.warm.fifo
	x.warm.fifo = nil
	go func() { // what is longer than a pipe waits for its reader, until that is gone
		_, _ = fifo.WriteString(*run.Code)
		fifo.Close()
	}()
	return nil
}

// closeWarm removes a fifo that no program came through: the next exec's file may have its name.
func (x *execution) closeWarm() {
	w := x.warm
	if w == nil || w.used {
		return
	}
	if w.fifo != nil {
		w.fifo.Close()
	}
	_ = as(x.who, func() error { w.removeSpare(); return remove(w.name) })
}

// replaceFifo puts the program's file, which is the user's, in the fifo's place.
func (x *execution) replaceFifo(run agent.Run) error {
	x.warm.removeSpare()
	name := besides(x.warm.name)
	if err := putFile(run.FileName, name, []byte(*run.Code), x.who, unix.O_EXCL|unix.O_NOFOLLOW); err != nil {
		return err
	}
	d, err := open(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Renameat(int(d.Fd()), path.Base(name), int(d.Fd()), path.Base(x.warm.name))
}
