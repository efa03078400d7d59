// Package runtimepipe carries service.Runtime over a byte stream: a server side that has one, and a client that is one.
// It shows that nothing but plain data crosses the interface, so that machines may be kept by another process.
//
// Messages are JSON values, one after the other; many calls share the stream. A call's output is acknowledged piece by
// piece, so that a reader who is slow holds up its own program alone.
package runtimepipe

import (
	"encoding/json"
	"errors"
	"io"
	"sync"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// message is what travels, in both directions; one field beside Call is set.
type message struct {
	Call    uint64
	Request *request `json:",omitempty"` // -> begins the call
	Cancel  bool     `json:",omitempty"` // -> its context has ended
	Taken   *taken   `json:",omitempty"` // -> answers Output
	Input   *input   `json:",omitempty"` // -> answers Want
	Want    bool     `json:",omitempty"` // <- a piece of what the call reads
	Output  *output  `json:",omitempty"` // <-
	Event   *event   `json:",omitempty"` // <- of the call watch
	Answer  *answer  `json:",omitempty"` // <- ends the call
}

type request struct {
	Method  string
	Known   []service.SandboxSpec `json:",omitempty"`
	Sandbox *service.SandboxSpec  `json:",omitempty"`
	ID      string                `json:",omitempty"`
	Exec    *service.ExecSpec     `json:",omitempty"`
	StopAll bool                  `json:",omitempty"`
	Port    *sandbox.Port         `json:",omitempty"`

	ExecID  string                   `json:",omitempty"`
	Control *service.TerminalControl `json:",omitempty"`
	Files   *service.FileOp          `json:",omitempty"`
	Reads   bool                     `json:",omitempty"` // the call has something to read
	Pid     int                      `json:",omitempty"`
	Signal  int                      `json:",omitempty"`

	Namespace string `json:",omitempty"`
	Operator  bool   `json:",omitempty"`
}

type event = service.Event

type answer struct {
	States  []service.SandboxState `json:",omitempty"`
	Outcome *service.ExecOutcome   `json:",omitempty"`
	Port    *sandbox.Port          `json:",omitempty"`
	Images  []sandbox.ImageInfo    `json:",omitempty"`

	Processes []sandbox.Process `json:",omitempty"`
	Error     *sandbox.Error    `json:",omitempty"`
}

// output is a piece of a stream; the next one of the same stream waits until it was taken.
type output struct {
	Stream int // 1 or 2, as file descriptors are numbered; 0: the program has started
	Bytes  []byte
	Found  *sandbox.FileInfo `json:",omitempty"` // instead of bytes, in order with them
}

// input is a piece of what a call reads.
type input struct {
	Bytes []byte
	End   bool
	Error *sandbox.Error `json:",omitempty"` // who reads it there failed
}

type taken struct {
	Stream int
	Failed bool // who takes it wants no more
}

const maxPiece = 64 << 10

// line is one end of the stream.
type line struct {
	conn io.ReadWriteCloser
	in   *json.Decoder
	mu   sync.Mutex
	out  *json.Encoder
}

func newLine(conn io.ReadWriteCloser) *line {
	return &line{conn: conn, in: json.NewDecoder(conn), out: json.NewEncoder(conn)}
}

func (l *line) send(m message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Encode(m)
}

func (l *line) receive() (message, error) {
	var m message
	err := l.in.Decode(&m)
	return m, err
}

// plain is an error as it travels: without its cause, which may name what is nobody's business over there.
func plain(err error) *sandbox.Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*sandbox.Error](err); ok {
		return e
	}
	return sandbox.Errorf(sandbox.Internal, nil, "the runtime failed")
}
