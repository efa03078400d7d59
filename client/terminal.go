package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/coder/websocket"

	"outpost.run/outpost/sandbox"
)

// TerminalOptions say what runs in a terminal; zero values are a login shell as the sandbox's user in its directory, 80 × 24.
type TerminalOptions struct {
	Command          []string
	User, WorkingDir string
	Term             string // the kind of terminal that this side is
	Size             sandbox.TerminalSize
}

func (o TerminalOptions) query() string {
	q := url.Values{"command": o.Command}
	for name, value := range map[string]string{
		"user": o.User, "working_dir": o.WorkingDir, "term": o.Term, "cols": strconv.Itoa(o.Size.Cols), "rows": strconv.Itoa(o.Size.Rows),
	} {
		if value != "" && value != "0" {
			q.Set(name, value)
		}
	}
	if len(q) == 1 && len(o.Command) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// Terminal is one of a stateful sandbox.
type Terminal struct {
	conn *websocket.Conn
	ctx  context.Context
	end  context.CancelFunc
}

// maxShown bounds one message of a terminal.
const maxShown = 1 << 20

// OpenTerminal opens a terminal of a stateful sandbox. Close, or the end of ctx, hangs it up.
func (c *Client) OpenTerminal(ctx context.Context, id string, o TerminalOptions) (*Terminal, error) {
	conn, res, err := websocket.Dial(ctx, c.base+c.inNamespace(id, "pty")+o.query(), &websocket.DialOptions{
		HTTPClient: c.http, HTTPHeader: http.Header{"Authorization": {c.auth}},
	})
	if err != nil {
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols {
			raw, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20)) // the library keeps the beginning of it
			return nil, errorOf(res, raw)
		}
		return nil, c.unreachable(err)
	}
	conn.SetReadLimit(maxShown)
	t := &Terminal{conn: conn}
	t.ctx, t.end = context.WithCancel(ctx)
	return t, nil
}

// Close hangs up.
func (t *Terminal) Close() error {
	t.end()
	return t.conn.CloseNow()
}

// Write sends what is typed.
func (t *Terminal) Write(b []byte) (int, error) {
	if err := t.conn.Write(t.ctx, websocket.MessageBinary, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Resize tells the program that the terminal has another size.
func (t *Terminal) Resize(size sandbox.TerminalSize) error {
	return t.control(sandbox.TerminalControl{Resize: &size})
}

// Signal signals what is in the terminal's foreground (SIGINT).
func (t *Terminal) Signal(name string) error {
	return t.control(sandbox.TerminalControl{Signal: &name})
}

func (t *Terminal) control(c sandbox.TerminalControl) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return t.conn.Write(t.ctx, websocket.MessageText, b)
}

// Show copies what the terminal shows to to until its program has ended, and gives how. Error Lost: the connection broke before.
func (t *Terminal) Show(to io.Writer) (sandbox.ExecResult, error) {
	for {
		kind, b, err := t.conn.Read(t.ctx)
		if err != nil {
			if t.ctx.Err() != nil {
				err = t.ctx.Err()
			}
			if errors.Is(err, context.Canceled) {
				return sandbox.ExecResult{}, err
			}
			return sandbox.ExecResult{}, sandbox.Errorf(sandbox.Lost, errors.Join(ErrSevered, err), "the terminal's connection broke off")
		}
		if kind == websocket.MessageBinary {
			if _, err := to.Write(b); err != nil {
				return sandbox.ExecResult{}, err
			}
			continue
		}
		var end sandbox.TerminalEnd
		if err := json.Unmarshal(b, &end); err != nil {
			return sandbox.ExecResult{}, err
		}
		switch {
		case end.Exit != nil:
			_ = t.conn.Close(websocket.StatusNormalClosure, "")
			return *end.Exit, nil
		case end.Fail != nil && end.Fail.Code != sandbox.Invalid: // what was wrong with a control does not end it
			e := sandbox.Errorf(end.Fail.Code, nil, "%s", end.Fail.Message)
			e.Details = end.Fail.Details
			return sandbox.ExecResult{}, e
		}
	}
}

// Ticket makes one for a browser, which can't send a credential: with ?ticket= it opens a terminal of the sandbox once, within 30 s.
func (c *Client) Ticket(ctx context.Context, id string) (string, error) {
	t, err := call[sandbox.Ticket](ctx, c, http.MethodPost, c.inNamespace(id, "pty", "ticket"), nil)
	return t.Ticket, err
}
