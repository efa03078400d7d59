package agent

import (
	"encoding/json"
	"fmt"
	"io"

	"outpost.run/outpost/sandbox"
)

// FileOp is one call on files, with a user's rights.
type FileOp struct {
	Verb   sandbox.FileVerb
	Path   string // absolute, or relative to Dir
	Dir    string
	User   string
	Offset int64
	Length int64  // 0: to the end
	Mode   uint32 // permission bits of a new file; 0: 0644
}

// A folder's list may hold so many entries, and so many bytes as they travel: the daemon has it in memory until it is answered.
const (
	MaxEntries = 100_000
	maxList    = 16 << 20
)

// FileSink takes what a FileOp brings, in order.
type FileSink interface {
	io.Writer
	Found(sandbox.FileInfo) error
}

// Files does one call on files; body is what Put and Unpack read, nil for the others. Its end is the connection's.
func (c *Conn) Files(op FileOp, body io.Reader, out FileSink) error {
	if err := WriteJSON(c.Conn, KindFiles, op); err != nil {
		return lost(err)
	}
	if body != nil {
		if err := c.upload(body); err != nil {
			return err
		}
	}
	entries, list := 1, 0
	if op.Verb == sandbox.ListFolder {
		entries = MaxEntries
	}
	for buf := make([]byte, MaxData); ; {
		kind, b, err := ReadFrame(c.r, buf, MaxData)
		if err != nil {
			return lost(err)
		}
		switch kind {
		case KindFile:
			var info sandbox.FileInfo
			if err := json.Unmarshal(b, &info); err != nil {
				return lost(err)
			}
			if entries--; entries < 0 || info.Size < 0 {
				return lost(fmt.Errorf("%w: more entries than there may be, or one of %d bytes", ErrFrame, info.Size))
			}
			if list += len(b); list > maxList {
				return sandbox.Errorf(sandbox.FileTooLarge, nil, "the list of %s has over %d MiB: list a part of it, or take its archive", op.Path, maxList>>20)
			}
			err = out.Found(info)
		case KindData:
			_, err = out.Write(b)
		case KindComplete:
			return nil
		case KindError:
			return failure(b)
		default:
			return lost(fmt.Errorf("%w: %q", ErrFrame, kind))
		}
		if err != nil {
			return err
		}
	}
}

// upload sends a body and its end. What the body's reader says is the answer; the agent may have refused more before.
func (c *Conn) upload(body io.Reader) error {
	for buf := make([]byte, MaxData); ; {
		n, err := io.ReadAtLeast(body, buf, 1)
		if n > 0 && WriteFrame(c.Conn, KindData, buf[:n]) != nil {
			return c.refused()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if WriteFrame(c.Conn, KindBegin, nil) != nil {
		return c.refused()
	}
	return nil
}

// refused reads why an agent hung up.
func (c *Conn) refused() error { return c.expect(KindError, nil) }

// TakeUpload reads what upload sends: the daemon's end of the connection without the end of the body is an error.
func TakeUpload(r io.Reader) io.Reader { return &uploaded{from: r, buf: make([]byte, MaxData)} }

type uploaded struct {
	from io.Reader
	buf  []byte
	rest []byte
	end  bool
}

// Read implements io.Reader.
func (u *uploaded) Read(p []byte) (int, error) {
	for len(u.rest) == 0 {
		if u.end {
			return 0, io.EOF
		}
		kind, b, err := ReadFrame(u.from, u.buf, MaxData)
		switch {
		case err != nil:
			return 0, io.ErrUnexpectedEOF
		case kind == KindBegin:
			u.end = true
		case kind == KindData:
			u.rest = b
		default:
			return 0, ErrFrame
		}
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// FileFrames sends what a FileOp brings as frames; its end is Complete.
type FileFrames struct{ W io.Writer }

// Write implements FileSink.
func (f FileFrames) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n := min(len(b)-sent, MaxData)
		if err := WriteFrame(f.W, KindData, b[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(b), nil
}

// Found implements FileSink.
func (f FileFrames) Found(info sandbox.FileInfo) error { return WriteJSON(f.W, KindFile, info) }

// Signal is for one process, by its number as programs see it.
type Signal struct {
	Pid    int
	Signal int
}

// Processes lists those of the programs.
func (c *Conn) Processes() ([]sandbox.Process, error) {
	if err := WriteJSON(c.Conn, KindProcesses, struct{}{}); err != nil {
		return nil, lost(err)
	}
	kind, b, err := ReadFrame(c.r, nil, MaxControl)
	switch {
	case err != nil:
		return nil, lost(err)
	case kind == KindError:
		return nil, failure(b)
	}
	var all []sandbox.Process
	if err := json.Unmarshal(b, &all); kind != KindOK || err != nil {
		return nil, lost(ErrFrame)
	}
	return all, nil
}

// Signal sends a signal to a process. Error NotFound: there is none of that number.
func (c *Conn) Signal(s Signal) error {
	if err := WriteJSON(c.Conn, KindSignal, s); err != nil {
		return lost(err)
	}
	return c.expect(KindOK, nil)
}
