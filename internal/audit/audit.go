// Package audit writes who did what, a JSON object a line. Secrets, programs and environments are never in it.
package audit

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"

	"outpost.run/outpost/sandbox"
)

// Entry is one line.
type Entry struct {
	At         sandbox.Time `json:"at"`
	RequestID  string       `json:"request_id"`
	Action     string       `json:"action"` // sandbox.create, exec.run, …
	Credential string       `json:"credential,omitempty"`
	Role       string       `json:"role,omitempty"`
	Namespace  string       `json:"namespace,omitempty"`
	Client     string       `json:"client"`           // address
	Object     string       `json:"object,omitempty"` // what it is about: the sandbox, job, key or token
	Made       string       `json:"made,omitempty"`   // what came of it: an id
	Path       string       `json:"path,omitempty"`   // of a file
	Status     int          `json:"status"`
	Code       sandbox.Code `json:"code,omitempty"`
}

// Log is an audit log; its zero value, and nil, write nothing. All methods are safe for concurrent use.
type Log struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	w    io.WriteCloser
	lost int // entries that could not be written since the last one that could
}

// Open opens the file for appending; only its owner may read it. "-" is standard output.
func Open(path string, log *slog.Logger) (*Log, error) {
	l := &Log{path: path, log: log}
	return l, l.Reopen()
}

// Reopen opens the file anew, for who has moved it away.
func (l *Log) Reopen() error {
	if l == nil || l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "-" {
		l.w = os.Stdout
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if l.w != nil {
		_ = l.w.Close()
	}
	l.w = f
	return nil
}

// Ready says whether entries can be written: where the last one could not, it tries whether one can now. What changes something is
// refused while this fails: an audit log that misses what happened is none.
//
// Error: Capacity.
func (l *Log) Ready() error {
	if l == nil || l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == 0 {
		return nil
	}
	if err := l.write(map[string]any{"at": sandbox.Now(), "action": "audit.resumed", "lost": l.lost}); err != nil {
		e := sandbox.Errorf(sandbox.Capacity, err, "the audit log can't be written, and nothing is changed without it; the operator must make room for it")
		e.RetryAfterSecs = 5
		return e
	}
	l.lost = 0
	return nil
}

// Write adds an entry.
func (l *Log) Write(e Entry) {
	if l == nil || l.path == "" {
		return
	}
	e.At = sandbox.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.write(e); err != nil {
		l.lost++
		l.log.Error("the audit log could not be written; calls that change something are refused until it can", "error", err, "action", e.Action, "object", e.Object, "request_id", e.RequestID)
	}
}

func (l *Log) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	n, err := l.w.Write(append(line, '\n'))
	if err != nil && n > 0 { // half a line: the next one begins on its own
		_, err2 := l.w.Write([]byte("\n"))
		err = errors.Join(err, err2)
	}
	return err
}
