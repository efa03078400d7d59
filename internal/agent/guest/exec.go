package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/cell"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

// execution is one exec's connection.
type execution struct {
	conn    net.Conn
	out     sync.Mutex // frames of stdout and stderr take turns
	who     user
	process *cell.Process
	killer  *os.File // cgroup.kill, nil where there is none

	keeps         func(name string, files collection) *kept
	kept          *kept     // nil: it does not stay, or nothing can be kept
	terminal      *terminal // nil: none
	runs          func()    // is called when the process no longer waits
	warm          *warm     // nil: the process is still parked
	file, scratch string    // of the program's code; "" for none
	temporary     bool      // they must be removed
	compiled      handover

	mu   sync.Mutex
	over bool // it has ended: a background process of it is no longer the connection's
}

// reapTime is how long the agent waits for a killed process: it may hang in the kernel.
const reapTime = 100 * time.Millisecond

func (a *Agent) exec(conn net.Conn, b []byte, files []*os.File) error {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var p agent.Park
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	a.mu.Lock()
	c := a.cell
	a.mu.Unlock()
	if c == nil {
		return errors.New("park before setup")
	}
	x := &execution{conn: conn, keeps: a.keep}
	if p.Groups > len(files) {
		return fmt.Errorf("park with %d descriptors, not %d", len(files), p.Groups)
	}
	if len(files) > p.Groups {
		x.killer = files[p.Groups]
	}
	var err error
	if x.who, err = lookUser(p.User); err != nil {
		return err
	}
	if x.process, err = c.Park(confinement(p, x.who, files[:p.Groups])); err != nil {
		return err
	}
	x.runs = a.waits(x.process.Pid)
	defer x.runs()
	gone, reaped := make(chan cell.Ended, 1), make(chan struct{})
	go func() {
		gone <- x.process.Wait()
		close(reaped)
	}()
	defer func() {
		go func() { // not waited for: a killed process may hang in the kernel
			<-reaped
			x.finish()
			x.process.Close()
		}()
	}()
	place := agent.Place{UID: x.who.uid, GID: x.who.gid, Pid: x.process.Pid}
	if err := agent.WriteJSON(conn, agent.KindOK, place); err != nil {
		x.kill()
		return err
	}
	a.spread.Do(spreadThreads)
	err = x.serve(gone)
	if err != nil {
		x.kill()
		select { // so that who waits for the hang-up finds no trace of it
		case <-reaped:
		case <-time.After(reapTime):
		}
	}
	x.closeWarm()
	return err
}

// waits notes that a process is parked, until done is called.
func (a *Agent) waits(pid int) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parked[pid] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.parked, pid)
	}
}

func confinement(p agent.Park, who user, join []*os.File) cell.Confinement {
	c := cell.Confinement{UID: who.uid, GID: who.gid, Groups: who.groups, Caps: p.Root, CPUs: p.CPUs, Join: join, Without: p.Without}
	for _, r := range p.Rlimits {
		c.Rlimits = append(c.Rlimits, cell.Rlimit(r))
	}
	if n := len(p.Filter) / 8; n > 0 {
		c.Filter = make([]unix.SockFilter, n)
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&c.Filter[0])), n*8), p.Filter)
	}
	return c
}

// kill ends the exec with everything it started, as far as the agent can: the daemon does so too, by the exec's cgroup.
func (x *execution) kill() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	if x.killer != nil {
		_, _ = x.killer.Write([]byte("1"))
	}
	x.process.Kill()
}

// finish ends what the end of the connection would kill.
func (x *execution) finish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
}

// serve waits for Run, lets the program run and tells how it ended.
func (x *execution) serve(gone chan cell.Ended) error {
	run, program, err := x.begin(gone)
	defer x.tidy()
	defer x.compiled.shut()
	tooLong := errors.Is(err, cell.ErrTooLong)
	if tooLong {
		x.kill()
	} else if err != nil {
		x.process.ClosePipes()
		return err
	}
	files := collection{x.who, run.Collect, run.Dir}
	if run.Stays != "" {
		x.finish()
		x.kept = x.keeps(run.Stays, files)
		defer x.kept.end(nil)
	}
	if x.compiled.gate != "" {
		go x.handOver()
	}
	go x.input()
	if x.terminal != nil {
		x.process.Stdout.Close()
		x.process.Stdout = x.terminal.master
	}
	stdout := x.drain(agent.KindStdout, x.process.Stdout, run.MaxOutput)
	stderr := x.drain(agent.KindStderr, x.process.Stderr, run.MaxOutput)
	ended := <-gone
	x.compiled.shut()
	if tooLong {
		ended = cell.Ended{NoStart: unix.E2BIG}
	}
	if run.KillRest && x.killer != nil {
		_, _ = x.killer.Write([]byte("1"))
	}
	stdout.finish(run.KillRest)
	stderr.finish(run.KillRest)
	if x.terminal != nil {
		x.terminal.master.Close()
	}
	if ended.NoStart != nil {
		var text string
		if ended.Code, text, err = notStarted(ended.NoStart, program); err != nil {
			return err
		}
		words := stderr
		if x.terminal != nil { // has one stream, in which a new line begins at the left by two characters
			words, text = stdout, strings.ReplaceAll(text, "\n", "\r\n")
		}
		words.say(text)
	}
	exit := agent.Exit{Code: ended.Code, Signal: int(ended.Signal), StdoutBytes: stdout.total, StderrBytes: stderr.total}
	x.kept.end(&exit)
	if err := x.write(agent.KindExit, exit); err != nil {
		return err
	}
	if err := files.send(x.conn); err != nil {
		return err
	}
	x.tidy() // the next exec finds all as it was
	x.finish()
	return agent.WriteFrame(x.conn, agent.KindComplete, nil)
}

// begin takes in what is to run, and lets it.
func (x *execution) begin(gone chan cell.Ended) (run agent.Run, p cell.Program, err error) {
	if run, err = x.prepare(gone); err != nil {
		return run, p, err
	}
	x.runs()
	if x.warm != nil {
		return run, x.warm.program, x.goOn(run)
	}
	if p, err = x.program(run); err != nil {
		return run, p, err
	}
	if run.Terminal != nil {
		if x.terminal, err = openTerminal(x.who, *run.Terminal); err != nil {
			return run, p, err
		}
		p.Terminal = x.terminal.path
	}
	if err = agent.WriteFrame(x.conn, agent.KindBegin, nil); err != nil {
		return run, p, err
	}
	return run, p, x.process.Run(p)
}

func (x *execution) write(kind agent.Kind, v any) error {
	x.out.Lock()
	defer x.out.Unlock()
	return agent.WriteJSON(x.conn, kind, v)
}

// prepare reads Run and takes the files in; before that the process may be warmed.
func (x *execution) prepare(gone chan cell.Ended) (agent.Run, error) {
	var run agent.Run
	kind, b, files, err := agent.ReadWithFiles(x.conn)
	if err == nil && kind == agent.KindWarm {
		closeAll(files)
		if err := x.warmUp(b, gone); err != nil {
			return run, err
		}
		kind, b, files, err = agent.ReadWithFiles(x.conn)
	}
	x.compiled.memory = files
	if err != nil || kind != agent.KindRun {
		return run, fmt.Errorf("%w: %q, not Run (%v)", agent.ErrFrame, kind, err)
	}
	if err := json.Unmarshal(b, &run); err != nil {
		return run, err
	}
	if x.warm == nil { // else it is there
		if err := makeDir("working_dir", run.Dir, x.who); err != nil {
			return run, err
		}
	} else if run.Files > 0 {
		_ = as(x.who, func() error { x.warm.removeSpare(); return nil })
	}
	for range run.Files {
		if err := x.takeFile(run.Dir); err != nil {
			return run, err
		}
	}
	if run.Compiled {
		if err := x.takeCompiled(); err != nil {
			return run, err
		}
	}
	if kind, _, err = agent.ReadFrame(x.conn, nil, 0); err != nil || kind != agent.KindBegin {
		return run, fmt.Errorf("%w: %q, not Begin (%v)", agent.ErrFrame, kind, err)
	}
	return run, nil
}

func (x *execution) takeFile(dir string) error {
	kind, b, err := agent.ReadFrame(x.conn, nil, agent.MaxControl)
	if err != nil || kind != agent.KindFile {
		return fmt.Errorf("%w: %q, not a file (%v)", agent.ErrFrame, kind, err)
	}
	var h agent.FileHeader
	if err := json.Unmarshal(b, &h); err != nil {
		return err
	}
	content := make([]byte, 0, h.Size)
	buf := make([]byte, agent.MaxData)
	for int64(len(content)) < h.Size {
		kind, b, err := agent.ReadFrame(x.conn, buf, agent.MaxData)
		if err != nil || kind != agent.KindData || int64(len(content)+len(b)) > h.Size {
			return fmt.Errorf("%w: %q in a file (%v)", agent.ErrFrame, kind, err)
		}
		content = append(content, b...)
	}
	name := absolute(h.Path, dir)
	err = as(x.who, func() error { return putFile(h.Path, name, content, x.who, unix.O_TRUNC) })
	if denied(err) && path.Dir(name) == path.Clean(dir) {
		// The exec's user may be another than the one the working directory belongs to; its files are its own all the same.
		err = as(user{}, func() error { return putFile(h.Path, name, content, x.who, unix.O_EXCL|unix.O_NOFOLLOW) })
	}
	return err
}

func denied(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && errors.Is(r.cause, unix.EACCES)
}

func absolute(name, dir string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(dir, name)
}

func putFile(asked, name string, content []byte, who user, flags int) error {
	f, err := create(name, flags)
	if err == nil {
		_, err = f.Write(content)
		if err == nil && flags&unix.O_NOFOLLOW != 0 {
			err = f.Chown(who.uid, who.gid)
		}
		if err2 := f.Close(); err == nil {
			err = err2
		}
	}
	switch {
	case err == nil:
		return nil
	case full(err):
		return refuse(sandbox.DiskFull, "files", "%s does not fit on the sandbox's disk: raise resource_limits.disk_mb", asked)
	case flags == unix.O_EXCL:
		return err // the caller has another name to try
	}
	return &refusal{agent.Failure{Code: sandbox.Invalid, Field: "files", Message: fmt.Sprintf("%s can't be written: %s", asked, reason(err))}, err}
}

// notStarted gives the exit code and the words of a shell for a program that can't be started.
func notStarted(why error, p cell.Program) (int, string, error) {
	name := p.Argv[0]
	if _, ok := errors.AsType[*host.StepError](why); ok { // a call before execve
		return 0, "", refuse(sandbox.Invalid, "working_dir", "%s can't be entered: %s", p.Dir, reason(why))
	}
	switch {
	case errors.Is(why, unix.ENOENT), errors.Is(why, unix.ENOTDIR):
		if strings.Contains(name, "/") {
			return 127, name + ": No such file or directory\n", nil
		}
		return 127, name + ": command not found\n", nil
	case errors.Is(why, unix.EACCES):
		return 126, name + ": Permission denied\n", nil
	case errors.Is(why, unix.ENOEXEC):
		return 126, name + ": Exec format error\n", nil
	case errors.Is(why, unix.E2BIG):
		return 126, name + ": Argument list too long\n", nil
	}
	return 126, name + ": " + reason(why) + "\n", nil
}
