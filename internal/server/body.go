package server

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"outpost.run/outpost/sandbox"
)

const (
	maxBodyBytes = 8 << 20
	drainBytes   = 64 << 20
	drainTime    = 2 * time.Second
)

// readBody reads a JSON body whole, within the time and size that a body has.
//
// Errors: UnsupportedMediaType, BodyTooLarge (before reading, where the size was announced), MalformedJSON (it ended early).
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, sandbox.Errorf(sandbox.UnsupportedMediaType, nil, "send the body as Content-Type: application/json")
	}
	if r.ContentLength > maxBodyBytes {
		return nil, tooLarge()
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // a test's writer has none
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, sandbox.Errorf(sandbox.MalformedJSON, err, "the body ended early or took longer than %v", bodyTime)
	case len(body) > maxBodyBytes:
		return nil, tooLarge()
	}
	// The connection is watched from here on, for as long as the program runs: the deadline must not end that.
	_ = control.SetReadDeadline(time.Time{})
	return body, nil
}

// takeBody hands the body on as it comes: it may take as long as it likes, but only where patient stand still.
func (c *call) takeBody(w http.ResponseWriter, r *http.Request, patient bool) (done func()) {
	control := http.NewResponseController(w)
	c.in, c.size = paced{r.Body, control}, r.ContentLength
	if patient {
		w.Header().Set("Connection", "close") // net/http cancels the context of a connection, not of a request, when a read's time is up
		_ = control.SetReadDeadline(time.Time{})
		c.in = r.Body
		c.cutBody = func() { _ = control.SetReadDeadline(time.Now()) }
	}
	return func() { _ = control.SetReadDeadline(time.Time{}) }
}

type paced struct {
	from    io.Reader
	control *http.ResponseController
}

// Read implements io.Reader.
func (p paced) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(bodyTime)) // a test's writer has none
	n, err := p.from.Read(b)
	if err == io.EOF { // from here on the connection is watched, for as long as the call lasts
		_ = p.control.SetReadDeadline(time.Time{})
	}
	if err != nil && err != io.EOF {
		err = sandbox.Errorf(sandbox.MalformedJSON, err, "the body ended early, or stood still for %v", bodyTime)
	}
	return n, err
}

func tooLarge() error {
	return sandbox.Errorf(sandbox.BodyTooLarge, nil, "JSON bodies end at 8 MiB")
}

// drain takes what a client still sends after it was refused, so that it reads the answer instead of a reset connection.
func drain(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if control.Flush() != nil || control.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, drainBytes)
}
