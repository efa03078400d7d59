// Package link is how the daemon speaks with the keeper of a guest: the calls of engine.Machine over one byte stream, many at
// once. Nothing that comes from a guest is believed: lengths are bounded before memory is taken, and a guest opens no stream.
package link

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// Port is the vsock port that a guest's keeper listens at, SerialPort the name of the virtio-serial port where there is no vsock.
const (
	Port       = 1024
	SerialPort = "outpost.link"
)

// A stream of the session is one call: a request, an answer, and what the call then carries.
const (
	kindRequest agent.Kind = 'q'
	kindAnswer  agent.Kind = 'a'
)

// maxAnswer bounds what a guest may answer.
const maxAnswer = 1 << 20

// request is one call; one of its fields is set beside ID.
type request struct {
	ID        uint64              `json:",omitempty"` // by which Cancel names it
	Cancel    uint64              `json:",omitempty"` // the call that nobody waits for any more
	Hello     bool                `json:",omitempty"`
	Renew     *Renewal            `json:",omitempty"`
	Rehearse  *engine.MachineSpec `json:",omitempty"`
	Start     *engine.MachineSpec `json:",omitempty"`
	Park      *engine.ExecSpec    `json:",omitempty"` // then the stream is the exec's, as of an agent that has parked
	Resume    string              `json:",omitempty"` // the exec's id; then the stream is a connection to the machine's agent
	Kill      string              `json:",omitempty"` // the exec's id
	Usage     string              `json:",omitempty"` // the exec's id
	Warm      *agent.Warm         `json:",omitempty"`
	Attach    *engine.Mount       `json:",omitempty"`
	Detach    string              `json:",omitempty"`
	Release   string              `json:",omitempty"` // a device
	Ping      bool                `json:",omitempty"`
	Call      bool                `json:",omitempty"` // then the stream is a connection to the machine's agent
	Isolation bool                `json:",omitempty"`
	Halt      bool                `json:",omitempty"`
	Dial      *dial               `json:",omitempty"` // then the stream is the connection
	Listen    string              `json:",omitempty"` // the address; the listener lives as long as the stream
	Accept    string              `json:",omitempty"` // the address; answered when somebody has connected, then the stream is the connection
	Link      *engine.LinkSpec    `json:",omitempty"` // then the stream carries packets
	Leave     bool                `json:",omitempty"` // with Link's stream: see engine.Link
}

type dial struct {
	Network string
	To      netip.AddrPort
}

// answer is what a call came to.
type answer struct {
	Error     *failure           `json:",omitempty"`
	Hello     *Hello             `json:",omitempty"`
	Isolation *sandbox.Isolation `json:",omitempty"`
	Warm      bool               `json:",omitempty"`
	Released  bool               `json:",omitempty"` // of Detach and Release: nothing uses the device any more
	Usage     *sandbox.Usage     `json:",omitempty"`
	OOM       bool               `json:",omitempty"`
}

// failure is an error that crosses the link.
type failure struct {
	Code    sandbox.Code
	Message string
	Details []sandbox.Detail `json:",omitempty"`
	Retry   int              `json:",omitempty"` // seconds
	Errno   syscall.Errno    `json:",omitempty"` // of a Dial
	Cause   string           `json:",omitempty"` // for the log
}

// Hello says who answers.
type Hello struct {
	Build   string // of the keeper: one of another build is of a former daemon
	Kernel  string
	Started bool // its machine runs
}

// Renewal is what a guest gets before its machine starts, so that no two guests of one snapshot are alike.
type Renewal struct {
	Time    time.Time
	Entropy []byte
}

// failures are the codes that a guest may answer with.
var failures = map[sandbox.Code]bool{
	sandbox.UserNotFound: true, sandbox.LanguageRuntimeMissing: true, sandbox.Invalid: true, sandbox.DiskFull: true, sandbox.NotSupported: true,
	sandbox.CollectTooLarge: true, sandbox.Internal: true, sandbox.Capacity: true, sandbox.Lost: true,
}

func failureOf(err error) *failure {
	f := &failure{Code: sandbox.Internal, Message: err.Error()}
	if e, ok := errors.AsType[*sandbox.Error](err); ok {
		f.Code, f.Message, f.Details, f.Retry = e.Code, e.Message, e.Details, e.RetryAfterSecs
		if cause := errors.Unwrap(e); cause != nil {
			f.Cause = cause.Error()
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		f.Errno = errno
	}
	return f
}

func (f *failure) err() error {
	if !failures[f.Code] {
		return lost(fmt.Errorf("%w: failure %.200q", agent.ErrFrame, f.Message))
	}
	cause := error(nil)
	if f.Cause != "" {
		cause = fmt.Errorf("guest: %s", f.Cause)
	}
	if f.Code == sandbox.Internal {
		return sandbox.Errorf(sandbox.Internal, fmt.Errorf("guest: %s: %w", f.Message, cause), "the machine did not do what it should")
	}
	e := sandbox.Errorf(f.Code, cause, "%s", f.Message)
	e.Details, e.RetryAfterSecs = f.Details, f.Retry
	return e
}

func lost(err error) error {
	return sandbox.Errorf(sandbox.Lost, err, "the machine was lost; try again")
}

// settings of a session. Keep-alives are left out: a guest that is paused or starved lives, and Ping asks when it matters.
func settings() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive, c.LogOutput = false, io.Discard
	c.ConnectionWriteTimeout, c.StreamOpenTimeout = time.Minute, time.Minute
	return c
}

// conn is a stream that carries pieces: bytes of a connection, or packets, one a piece. It is whole pieces that are read where
// buffers have room for the largest, so that packets stay what they are.
type conn struct {
	net.Conn
	r    *bufio.Reader
	rest []byte
	buf  []byte
}

func newConn(c net.Conn, r *bufio.Reader) *conn { return &conn{Conn: c, r: r} }

// Read implements net.Conn; an empty piece is the other side's end.
func (c *conn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		if c.buf == nil {
			c.buf = make([]byte, agent.MaxData)
		}
		kind, got, err := agent.ReadFrame(c.r, c.buf, agent.MaxData)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // only the other side's word is the end
		}
		if err != nil {
			return 0, err
		}
		if kind != agent.KindData {
			return 0, fmt.Errorf("%w: %q in a connection", agent.ErrFrame, kind)
		}
		if len(got) == 0 {
			return 0, io.EOF
		}
		c.rest = got
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		piece := b[:min(len(b), agent.MaxData)]
		if err := agent.WriteFrame(c.Conn, agent.KindData, piece); err != nil {
			return n, err
		}
		n += len(piece)
		b = b[len(piece):]
	}
	return n, nil
}

// CloseWrite tells the other side that no more comes.
func (c *conn) CloseWrite() error { return agent.WriteFrame(c.Conn, agent.KindData, nil) }

func readJSON(r io.Reader, want agent.Kind, limit int, v any) error {
	kind, b, err := agent.ReadFrame(r, nil, limit)
	if err != nil {
		return err
	}
	if kind != want {
		return fmt.Errorf("%w: %q, not %q", agent.ErrFrame, kind, want)
	}
	return json.Unmarshal(b, v)
}
