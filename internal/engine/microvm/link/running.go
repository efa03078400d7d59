package link

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
)

// running serves one exec to the daemon, which speaks to it as to an agent.
type running struct {
	x engine.Exec
	s net.Conn
	r *bufio.Reader

	mu sync.Mutex // of writing
}

func (x *running) write(kind agent.Kind, b []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return agent.WriteFrame(x.s, kind, b)
}

func (x *running) writeJSON(kind agent.Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return x.write(kind, b)
}

// serve reads what to run, runs it, and stays until the daemon lets go of the exec, or ctx ends, which is that of the link.
func (x *running) serve(ctx context.Context) {
	var run agent.Run
	if err := readJSON(x.r, agent.KindRun, agent.MaxControl, &run); err != nil {
		return
	}
	feed, err := x.feed(run)
	if err != nil {
		return
	}
	stdin, input := io.Pipe()
	feed.Stdin = stdin
	defer context.AfterFunc(ctx, func() { stdin.Close() })() // what a program doesn't read holds up nobody
	gone, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		x.readInput(input)
		select {
		case <-ended: // what it left in the background stays, if the machine does
		default: // nobody is there any more
			if run.Stays != "" || run.Terminal != nil { // it goes on for who asks for it again, its session hears of it
				x.x.Close()
			} else {
				_ = x.x.Kill()
			}
		}
	}()
	_, files, err := x.x.Run(run, feed)
	close(ended)
	stdin.Close()
	if feed.Program != nil {
		feed.Program.Close()
	}
	if err == nil {
		err = x.sendFiles(files)
	} else if f := failureOf(err); failures[f.Code] {
		err = x.writeJSON(agent.KindError, agent.Failure{Code: f.Code, Message: f.Message})
	} else {
		x.s.Close()
	}
	if err != nil {
		x.s.Close()
	}
	<-gone
}

// feed reads the files, and the compiled program, that come before a program starts.
func (x *running) feed(run agent.Run) (agent.Feed, error) {
	feed := agent.Feed{
		Stdout: output{x, agent.KindStdout}, Stderr: output{x, agent.KindStderr},
		Started: func() { _ = x.write(agent.KindBegin, nil) },
		Exited:  func(e agent.Exit) { _ = x.writeJSON(agent.KindExit, e) },
		Compiled: func(program *os.File, size int64) {
			defer program.Close()
			x.mu.Lock()
			defer x.mu.Unlock()
			_ = agent.WriteFile(x.s, "", io.NewSectionReader(program, 0, size), size)
		},
	}
	for range run.Files {
		h, err := x.header()
		if err != nil {
			return feed, err
		}
		var content bytes.Buffer
		if err := agent.ReadFile(x.r, &content, h.Size); err != nil {
			return feed, err
		}
		feed.Files = append(feed.Files, agent.File{Path: h.Path, Content: content.Bytes()})
	}
	if run.Compiled {
		h, err := x.header()
		if err != nil {
			return feed, err
		}
		if feed.Program, err = memory(); err != nil {
			return feed, err
		}
		feed.ProgramSize = h.Size
		if err := agent.ReadFile(x.r, feed.Program, h.Size); err != nil {
			feed.Program.Close()
			return feed, err
		}
	}
	kind, _, err := agent.ReadFrame(x.r, nil, 0)
	if err == nil && kind != agent.KindBegin {
		err = fmt.Errorf("%w: %q, not %q", agent.ErrFrame, kind, agent.KindBegin)
	}
	return feed, err
}

func (x *running) header() (h agent.FileHeader, err error) {
	if err = readJSON(x.r, agent.KindFile, agent.MaxControl, &h); err == nil && (h.Size < 0 || h.Size > agent.MaxProgram) {
		err = fmt.Errorf("%w: a file of %d bytes", agent.ErrFrame, h.Size)
	}
	return h, err
}

// readInput hands on what comes for the program's standard input until the stream ends.
func (x *running) readInput(input *io.PipeWriter) {
	defer input.Close()
	for buf := make([]byte, agent.MaxData); ; {
		kind, b, err := agent.ReadFrame(x.r, buf, agent.MaxData)
		if err != nil {
			return
		}
		if kind == agent.KindControl {
			var c agent.Control
			if json.Unmarshal(b, &c) == nil {
				_ = x.x.Control(c)
			}
			continue
		}
		if kind == agent.KindStdin && len(b) > 0 {
			_, _ = input.Write(b) // a program that reads no more is none of the daemon's business
		} else {
			input.Close()
		}
	}
}

func (x *running) sendFiles(files []agent.File) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range files {
		if err := agent.WriteFile(x.s, f.Path, bytes.NewReader(f.Content), int64(len(f.Content))); err != nil {
			return err
		}
	}
	return agent.WriteFrame(x.s, agent.KindComplete, nil)
}

// output is where a program's output goes.
type output struct {
	x    *running
	kind agent.Kind
}

func (o output) Write(b []byte) (int, error) { return len(b), o.x.write(o.kind, b) }

// memory is a file for a compiled program, which goes with its last descriptor.
func memory() (*os.File, error) {
	fd, err := unix.MemfdCreate("program", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "program"), nil
}
