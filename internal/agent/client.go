package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"outpost.run/outpost/sandbox"
)

// Conn is the daemon's side of one connection.
type Conn struct {
	net.Conn
	r      *bufio.Reader
	memory *os.File // for the program that is compiled; nil for none

	sending sync.Mutex // of frames while a program runs
}

// NewConn wraps a fresh connection to an agent.
func NewConn(c net.Conn) *Conn { return Parked(c, bufio.NewReaderSize(c, smallBuffer)) }

// Parked wraps a connection on which an agent, or who stands for one, has parked a process already; r reads it.
func Parked(c net.Conn, r *bufio.Reader) *Conn { return &Conn{Conn: c, r: r} }

// Rest reads what the agent sends, for who passes it on as it is.
func (c *Conn) Rest() io.Reader { return c.r }

// smallBuffer is what a connection begins with: most programs say little.
const smallBuffer = 4 << 10

// Setup furnishes the machine; tree is the mount that becomes the programs' root, nil where the agent finds it itself, and
// join are the trees of s.Mounts in their order, then the cgroup.procs of the group that the reaper puts itself into.
func (c *Conn) Setup(s Setup, tree *os.File, join ...*os.File) (Place, error) {
	var files []*os.File
	if tree != nil {
		files = append([]*os.File{tree}, join...)
	}
	return c.call(KindSetup, s, files)
}

// Park makes a confined process that waits for Run; join are its control groups' cgroup.procs, then perhaps cgroup.kill.
func (c *Conn) Park(p Park, join ...*os.File) (Place, error) {
	return c.call(KindPark, p, join)
}

// Warm lets the parked process become an interpreter that waits for its program; false where it stays parked, since there is
// no such interpreter or no place for the program's file.
func (c *Conn) Warm(w Warm) (bool, error) {
	p, err := c.call(KindWarm, w, nil)
	return p.Warm, err
}

// Mount shows a tree to the programs of a machine that is set up.
func (c *Conn) Mount(m Mount, tree *os.File) error {
	_, err := c.call(KindMount, m, []*os.File{tree})
	return err
}

// Unmount takes away what Mount showed at a path.
func (c *Conn) Unmount(path string) error {
	_, err := c.call(KindUnmount, Mount{Path: path}, nil)
	return err
}

// Ping asks whether the agent answers.
func (c *Conn) Ping() error {
	_, err := c.call(KindPing, struct{}{}, nil)
	return err
}

func (c *Conn) call(kind Kind, v any, files []*os.File) (Place, error) {
	if err := writeWithFiles(c.Conn, kind, v, files); err != nil {
		return Place{}, lost(err)
	}
	var p Place
	err := c.expect(KindOK, &p)
	return p, err
}

func (c *Conn) expect(want Kind, v any) error {
	kind, b, err := ReadFrame(c.r, nil, 1<<20)
	if err != nil {
		return lost(err)
	}
	if kind == KindError {
		return failure(b)
	}
	if kind != want {
		return lost(fmt.Errorf("%w: %q, not %q", ErrFrame, kind, want))
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return lost(err)
	}
	return nil
}

func lost(err error) error {
	return sandbox.Errorf(sandbox.Lost, err, "the machine was lost; try again")
}

// failures are the codes an agent may answer with; anything else from in there is a lost machine.
var failures = map[sandbox.Code]bool{
	sandbox.UserNotFound: true, sandbox.LanguageRuntimeMissing: true, sandbox.Invalid: true, sandbox.DiskFull: true,
	sandbox.CollectTooLarge: true, sandbox.Internal: true, sandbox.NotFound: true, sandbox.Conflict: true,
	sandbox.FileNotFound: true, sandbox.FilePermissionDenied: true, sandbox.IsADirectory: true, sandbox.NotADirectory: true, sandbox.FileTooLarge: true,
}

func failure(b []byte) error {
	var f Failure
	if err := json.Unmarshal(b, &f); err != nil || !failures[f.Code] {
		return lost(fmt.Errorf("%w: failure %.200q", ErrFrame, b))
	}
	if f.Code == sandbox.Internal {
		return sandbox.Errorf(sandbox.Internal, fmt.Errorf("agent: %s", f.Message), "the machine could not be set up")
	}
	e := sandbox.Errorf(f.Code, nil, "%s", f.Message)
	if f.Field != "" {
		e.Details = []sandbox.Detail{{Field: f.Field, Reason: f.Message}}
	}
	return e
}

// File is a file to put in or one that was collected.
type File struct {
	Path    string
	Content []byte
}

// Feed is what goes into a program and where its output goes.
type Feed struct {
	Files          []File
	Stdin          io.Reader // nil: it is empty
	Stdout, Stderr io.Writer
	Program        *os.File   // that of Run.Compiled, to read
	ProgramSize    int64      // its first bytes are the program
	Started        func()     // called when the program starts
	Exited         func(Exit) // called when it has ended, before its files are collected
	Resume         *Resume    // the program runs already, and stays: only Stdout and Stderr are its
	// Compiled gets what Run.HandOver brings, if anything, and closes it. It was sealed before the program could run.
	Compiled func(program *os.File, size int64)
}

// Run lets the parked process become the program and returns when it has ended and its files are collected.
func (c *Conn) Run(run Run, feed Feed) (Exit, []File, error) {
	if feed.Resume != nil {
		return c.resume(*feed.Resume, run.MaxOutput, feed)
	}
	run.Files = len(feed.Files)
	var with []*os.File
	if run.HandOver {
		f, err := newMemory()
		if err != nil {
			return Exit{}, nil, sandbox.Errorf(sandbox.Internal, err, "the program could not be compiled")
		}
		c.memory = f
		defer func() { c.memory.Close() }() // nil where it was handed over
		if c.carriesFiles() {
			with = []*os.File{f}
		}
	}
	if err := writeWithFiles(c.Conn, KindRun, run, with); err != nil {
		return Exit{}, nil, lost(err)
	}
	if err := c.send(feed.Files, feed.Program, feed.ProgramSize); err != nil {
		return Exit{}, nil, err
	}
	if err := c.expect(KindBegin, nil); err != nil {
		return Exit{}, nil, err
	}
	feed.Started()
	go c.feedStdin(feed.Stdin)
	exit, err := c.output(run.MaxOutput, [2]int64{}, feed)
	if err != nil {
		return Exit{}, nil, err
	}
	feed.Exited(exit)
	files, err := c.collect()
	return exit, files, err
}

func (c *Conn) send(files []File, program *os.File, size int64) error {
	for _, f := range files { // the agent refuses a file while more are on their way: its reason is waiting to be read
		if err := WriteFile(c.Conn, f.Path, bytes.NewReader(f.Content), int64(len(f.Content))); err != nil {
			return c.expect(KindBegin, nil)
		}
	}
	if program != nil {
		if err := c.sendProgram(program, size); err != nil {
			return c.expect(KindBegin, nil)
		}
	}
	if err := WriteFrame(c.Conn, KindBegin, nil); err != nil {
		return c.expect(KindBegin, nil)
	}
	return nil
}

func (c *Conn) sendProgram(program *os.File, size int64) error {
	if c.carriesFiles() {
		return writeWithFiles(c.Conn, KindFile, FileHeader{Size: size}, []*os.File{program})
	}
	return WriteFile(c.Conn, "", io.NewSectionReader(program, 0, size), size)
}

// carriesFiles says whether descriptors can be sent. Where they can't, what they would hold is.
func (c *Conn) carriesFiles() bool {
	_, is := c.Conn.(*net.UnixConn)
	return is
}

func (c *Conn) feedStdin(r io.Reader) {
	for buf := make([]byte, smallBuffer); r != nil; {
		n, err := r.Read(buf)
		if n > 0 && c.sendOne(KindStdin, buf[:n]) != nil || err != nil {
			break
		}
		if n == len(buf) && n < MaxData {
			buf = make([]byte, MaxData)
		}
	}
	_ = c.sendOne(KindStdin, nil)
}

// sendOne sends a frame beside others, while a program runs.
func (c *Conn) sendOne(kind Kind, b []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return WriteFrame(c.Conn, kind, b)
}

// Control changes the terminal of the program that runs.
func (c *Conn) Control(x Control) error {
	b, err := json.Marshal(x)
	if err == nil {
		err = c.sendOne(KindControl, b)
	}
	if err != nil {
		return lost(err)
	}
	return nil
}

// resume follows a program that another connection ran.
func (c *Conn) resume(r Resume, limit int64, feed Feed) (Exit, []File, error) {
	if err := WriteJSON(c.Conn, KindResume, r); err != nil {
		return Exit{}, nil, lost(err)
	}
	var from Resume
	if err := c.expect(KindOK, &from); err != nil {
		return Exit{}, nil, err
	}
	for i, w := range []*io.Writer{&feed.Stdout, &feed.Stderr} {
		if from.At[i] < r.At[i] {
			return Exit{}, nil, lost(fmt.Errorf("%w: resumed at %v, not %v", ErrFrame, from.At, r.At))
		}
		if from.At[i] > r.At[i] {
			*w = io.Discard // what follows a loss is lost: a stream has no holes
		}
	}
	feed.Started()
	exit, err := c.output(limit, from.At, feed)
	if err != nil {
		return Exit{}, nil, err
	}
	feed.Exited(exit)
	files, err := c.collect()
	return exit, files, err
}

// output hands on what a program writes until it has ended; got is how much of each stream came before.
func (c *Conn) output(limit int64, got [2]int64, feed Feed) (Exit, error) {
	buf := make([]byte, smallBuffer)
	for {
		kind, b, err := ReadFrame(c.r, buf, MaxData)
		if err != nil {
			return Exit{}, lost(err)
		}
		if len(b) > len(buf) {
			buf = make([]byte, MaxData)
		}
		switch kind {
		case KindStdout, KindStderr:
			i, w := 0, feed.Stdout
			if kind == KindStderr {
				i, w = 1, feed.Stderr
			}
			if got[i] += int64(len(b)); got[i] > limit {
				return Exit{}, lost(fmt.Errorf("%w: more output than was asked for", ErrFrame))
			}
			if _, err := w.Write(b); err != nil {
				return Exit{}, err
			}
		case KindFile:
			size, err := c.compiled(b)
			if err != nil {
				return Exit{}, lost(err)
			}
			feed.Compiled(c.memory, size)
			c.memory = nil
		case KindExit:
			var e Exit
			if err := json.Unmarshal(b, &e); err != nil {
				return e, lost(err)
			}
			if e.StdoutBytes < got[0] || e.StderrBytes < got[1] || e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > 64 {
				return e, lost(fmt.Errorf("%w: exit %+v after %d bytes", ErrFrame, e, got))
			}
			return e, nil
		case KindError:
			return Exit{}, failure(b)
		default:
			return Exit{}, lost(fmt.Errorf("%w: %q", ErrFrame, kind))
		}
	}
}

// compiled says that what the agent put into memory, or sends now, is a program that can't change any more.
func (c *Conn) compiled(header []byte) (size int64, err error) {
	var h FileHeader
	if err := json.Unmarshal(header, &h); err != nil {
		return 0, err
	}
	if c.memory == nil || h.Size <= 0 || h.Size > MaxProgram {
		return 0, fmt.Errorf("%w: a program of %d bytes", ErrFrame, h.Size)
	}
	if !c.carriesFiles() {
		if err := ReadFile(c.r, c.memory, h.Size); err != nil {
			return 0, err
		}
		if err := Seal(c.memory); err != nil {
			return 0, err
		}
	}
	if !sealed(c.memory, h.Size) {
		return 0, fmt.Errorf("%w: a program of %d bytes that may still change", ErrFrame, h.Size)
	}
	return h.Size, nil
}

func (c *Conn) collect() ([]File, error) {
	var files []File
	var total int64
	for {
		kind, b, err := ReadFrame(c.r, nil, MaxData)
		if err != nil {
			return nil, lost(err)
		}
		switch kind {
		case KindFile:
			var h FileHeader
			if err := json.Unmarshal(b, &h); err != nil {
				return nil, lost(err)
			}
			if h.Size < 0 || h.Size > MaxCollect {
				return nil, lost(fmt.Errorf("%w: a file of %d bytes", ErrFrame, h.Size))
			}
			if total += h.Size + int64(len(h.Path)) + 256; total > 2*MaxCollect {
				return nil, lost(fmt.Errorf("%w: files of over %d bytes", ErrFrame, MaxCollect))
			}
			files = append(files, File{Path: h.Path, Content: make([]byte, 0, h.Size)})
		case KindData:
			if len(files) == 0 {
				return nil, lost(ErrFrame)
			}
			f := &files[len(files)-1]
			if len(f.Content)+len(b) > cap(f.Content) {
				return nil, lost(fmt.Errorf("%w: a file longer than it said", ErrFrame))
			}
			f.Content = append(f.Content, b...)
		case KindComplete:
			return files, nil
		case KindError:
			return nil, failure(b)
		default:
			return nil, lost(fmt.Errorf("%w: %q", ErrFrame, kind))
		}
	}
}
