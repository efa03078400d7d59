// Package audit keeps who created, ran, changed and deleted what: one line of JSON each, in a file that is only ever appended to. No
// secret, code or value of an environment comes here, because an Entry has no place for it.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Stdout stands where the file is named, of a log that goes to standard output.
const Stdout = "-"

// The outcomes of an Entry.
const (
	Begun   = "begun"   // it was let in, and is about to happen; its end has a line of its own
	Done    = "done"    // it happened
	Refused = "refused" // nothing was changed: the caller may not, or asked for what can't be
	Failed  = "failed"  // the server could not do it, or not all of it
	Gone    = "gone"    // the client went away before the end, which is not known here
)

// Entry is one line.
type Entry struct {
	Time       time.Time         `json:"time"` // UTC
	RequestID  string            `json:"request_id,omitempty"`
	Action     string            `json:"action"` // what.verb, for example sandbox.create
	Outcome    string            `json:"outcome"`
	Repeated   bool              `json:"repeated,omitempty"` // it was the repeat of a call with the same Idempotency-Key, and nothing happened again
	Status     int               `json:"status,omitempty"`
	Code       string            `json:"code,omitempty"` // of the error
	Reason     string            `json:"reason,omitempty"`
	Suppressed int               `json:"suppressed,omitempty"` // calls without a valid credential since the last one noted, which have no lines
	DurationMS float64           `json:"duration_ms,omitempty"`
	Credential *Credential       `json:"credential"` // null: nobody that is known, or the server itself
	Namespace  string            `json:"namespace,omitempty"`
	Client     string            `json:"client,omitempty"` // address and port; empty: the server itself
	Object     map[string]string `json:"object,omitempty"` // ids, ports and paths by kind
}

// Credential is whose call it was.
type Credential struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Role      string `json:"role"`
	Namespace string `json:"namespace"`
}

// Log is an audit log. All methods are safe for concurrent use.
type Log struct {
	path string
	told func(error)

	mu   sync.Mutex
	to   io.WriteCloser
	torn bool // the last line broke off
}

// Open opens the log at path, and makes it where it is missing, for its owner alone; told hears how each line went.
func Open(path string, told func(error)) (*Log, error) {
	l := &Log{path: path, told: told}
	if path == Stdout {
		l.to = os.Stdout
		return l, nil
	}
	f, err := open(path)
	l.to = f
	return l, err
}

// To is a log that writes to w, and has nothing to reopen.
func To(w io.WriteCloser, told func(error)) *Log { return &Log{path: Stdout, to: w, told: told} }

func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the audit log can't be opened: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() { // a pipe that nobody reads would hold every call up
		err = errors.New("it is no file; - is standard output")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the audit log %s can't be used: %w", path, err), f.Close())
	}
	return f, nil
}

// Write adds a line. When it returns nil the line survives the end of the process, but not that of the power.
func (l *Log) Write(e Entry) error {
	line, err := json.Marshal(e)
	if err == nil {
		err = l.write(append(line, '\n'))
	}
	l.told(err)
	return err
}

func (l *Log) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.to.Write(line)
	if n > 0 {
		l.torn = n < len(line)
	}
	if err != nil {
		return fmt.Errorf("a line of the audit log could not be written: %w", err)
	}
	return nil
}

// Reopen goes on in the file that is at the path by now, so that the old one can be moved away. On error the old one stays in use.
func (l *Log) Reopen() error {
	if l.path == Stdout {
		return nil
	}
	f, err := open(l.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.to
	l.to, l.torn = f, false
	l.mu.Unlock()
	return old.Close()
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == Stdout {
		return nil
	}
	return l.to.Close()
}
