package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// A compiled program lies in its exec's own folder under this name; who starts it (node's compile-*.sh and run-compiled.sh)
// knows it, too. Beside it lies, while its compiler runs, the gate that it comes through.
const (
	compiledName = "main"
	gateName     = "taken"
)

// handover is how a compiled program gets to the daemon before it runs. The shell that compiled it opens a fifo, the
// gate, to read: so the agent learns that the program is there. It copies it into the daemon's memory, seals that, and by
// closing the gate lets the shell become the program. Nothing but the compiler has run until then.
type handover struct {
	gate string // "" for none

	mu     sync.Mutex // held while the program is copied
	memory []*os.File // one; none after the exec has ended
}

// makeGate makes the fifo. Where it can't be made, the shell doesn't wait and nothing is handed over.
func (x *execution) makeGate() {
	gate := path.Join(x.scratch, gateName)
	err := as(x.who, func() error {
		d, err := open(x.scratch, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer d.Close()
		return unix.Mkfifoat(int(d.Fd()), gateName, 0o600)
	})
	if err == nil {
		x.compiled.gate = gate
	}
}

// handOver waits until the program is compiled, or the exec has ended, and sends it.
func (x *execution) handOver() {
	var gate *os.File
	err := as(x.who, func() (err error) {
		gate, err = open(x.compiled.gate, unix.O_WRONLY|unix.O_NOFOLLOW, 0) // returns when another opens it to read
		return err
	})
	if err != nil {
		return
	}
	defer func() {
		_, _ = gate.WriteString("\n") // who reads is told that all went well
		gate.Close()
	}()
	x.compiled.mu.Lock()
	defer x.compiled.mu.Unlock()
	if len(x.compiled.memory) != 1 {
		return
	}
	x.sendCompiled(x.compiled.memory[0])
	x.clear()
}

// shut ends the waiting of handOver: after it nothing is sent any more. It may be called twice.
func (h *handover) shut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	closeAll(h.memory)
	h.memory = nil
	if h.gate == "" {
		return
	}
	// As root of the cell: it is its own fifo, whoever it belongs to.
	if f, err := open(h.gate, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0); err == nil {
		f.Close()
	}
}

// sendCompiled copies the program, if it is one that may be handed over, and tells the daemon. The program runs all the same
// where that fails.
func (x *execution) sendCompiled(memory *os.File) {
	f, size := x.openCompiled()
	if f == nil {
		return
	}
	defer f.Close()
	if copyFile(memory, f, size) == nil && agent.Seal(memory) == nil {
		_ = x.write(agent.KindFile, agent.FileHeader{Path: compiledName, Size: size}) // a daemon that is gone is noticed by who reads from it
	}
}

func (x *execution) openCompiled() (f *os.File, size int64) {
	_ = as(x.who, func() (err error) {
		f, err = open(path.Join(x.scratch, compiledName), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW, 0)
		return err
	})
	if f == nil {
		return nil, 0
	}
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > agent.MaxProgram {
		f.Close()
		return nil, 0
	}
	return f, st.Size()
}

// clear leaves the program alone in its folder: so it finds it, too, where it needed no compiling.
func (x *execution) clear() {
	_ = as(x.who, func() error {
		d, err := open(x.scratch, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer d.Close()
		names, err := d.Readdirnames(removeEntries)
		if err != nil && err != io.EOF {
			return err
		}
		left := entries(removeEntries)
		for _, name := range names {
			if name != compiledName {
				_ = removeAll(int(d.Fd()), name, left, removeDepth)
			}
		}
		return nil
	})
}

// takeCompiled puts a program that was compiled earlier where its compiler would: a copy of its own, so that it may do with
// it what it likes. The daemon's file is closed before it runs.
func (x *execution) takeCompiled() error {
	kind, b, files, err := agent.ReadWithFiles(x.conn)
	defer closeAll(files)
	if err != nil || kind != agent.KindFile || len(files) != 1 {
		return fmt.Errorf("%w: %q with %d descriptors, not a program (%v)", agent.ErrFrame, kind, len(files), err)
	}
	var h agent.FileHeader
	if err := json.Unmarshal(b, &h); err != nil {
		return err
	}
	if err := x.makeScratch(); err != nil {
		return err
	}
	var f *os.File
	err = as(x.who, func() (err error) {
		if f, err = create(path.Join(x.scratch, compiledName), unix.O_EXCL|unix.O_NOFOLLOW); err == nil {
			err = f.Chmod(0o755)
		}
		return err
	})
	if f != nil {
		defer f.Close()
	}
	if err == nil {
		err = copyFile(f, files[0], h.Size)
	}
	if full(err) {
		return refuse(sandbox.DiskFull, "code", "the program does not fit on the sandbox's disk: raise resource_limits.disk_mb")
	}
	return err
}

// copyFile copies the first bytes of a file in the kernel. Source: sendfile(2), to a file since 2.6.33.
func copyFile(to, from *os.File, size int64) error {
	for at := int64(0); at < size; {
		n, err := unix.Sendfile(int(to.Fd()), int(from.Fd()), &at, int(min(size-at, 1<<30)))
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}
