package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/strict"
	"outpost.run/outpost/sandbox"
)

const (
	ticketTime  = 30 * time.Second
	maxTyped    = 1 << 20 // bytes of one message from a terminal's client
	usualCols   = 80
	usualRows   = 24
	pingEvery   = 30 * time.Second // a client that is gone without a word is noticed
	pingTimeout = 30 * time.Second
)

// tickets open a terminal of one sandbox, once.
type tickets struct {
	mu  sync.Mutex
	all map[string]ticket
}

type ticket struct {
	credential    []string // who made it is looked up once more, when it is redeemed
	namespace, id string
	ends          time.Time
}

func (t *tickets) make(of ticket) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[string]ticket{}
	}
	now := time.Now()
	for name, x := range t.all {
		if now.After(x.ends) {
			delete(t.all, name)
		}
	}
	name := service.NewTicket()
	of.ends = now.Add(ticketTime)
	t.all[name] = of
	return name
}

// redeem gives the credential whose a ticket is. Error: Unauthorized.
func (t *tickets) redeem(name, namespace, id string) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x, is := t.all[name]
	delete(t.all, name)
	if !is || time.Now().After(x.ends) || x.namespace != namespace || x.id != id {
		return nil, service.Unauthorized()
	}
	return x.credential, nil
}

func (s *Server) makeTicket(c *call) (any, error) {
	if _, err := s.svc.Get(c.namespace, c.id); err != nil {
		return nil, err
	}
	return sandbox.Ticket{Ticket: s.tickets.make(ticket{credential: c.header.Values("Authorization"), namespace: c.namespace, id: c.id})}, nil
}

var ptyParams = []param{
	{name: "command", doc: "a word of the command; given again for each. A login shell unless given", many: true},
	{name: "cols", doc: "80 unless given"}, {name: "rows", doc: "24 unless given"},
	{name: "user", doc: "the sandbox's unless given"}, {name: "working_dir", doc: "the sandbox's unless given"},
	{name: "term", doc: "the kind of the client's terminal; xterm-256color unless given"},
	{name: "ticket", doc: "instead of a credential"},
}

// readTerminal reads what a call says of its terminal.
func readTerminal(c *call) (r service.TerminalRequest, faults sandbox.Faults) {
	q, faults := readQuery(c.rawQuery, ptyParams)
	r = service.TerminalRequest{Command: q["command"], Term: q.Get("term"), Size: sandbox.TerminalSize{
		Cols: readNumber(q, "cols", usualCols, 1, service.MaxTerminal, &faults), Rows: readNumber(q, "rows", usualRows, 1, service.MaxTerminal, &faults),
	}}
	if q.Has("user") {
		r.User = new(q.Get("user"))
	}
	if q.Has("working_dir") {
		r.WorkingDir = new(q.Get("working_dir"))
	}
	return r, faults
}

// handshake judges what begins a WebSocket, because the library that accepts one refuses in plain text. Source: RFC 6455, 4.2.1.
func handshake(h http.Header) error {
	has := func(name, word string) bool {
		return slices.ContainsFunc(strings.Split(strings.Join(h.Values(name), ","), ","), func(s string) bool { return strings.EqualFold(strings.TrimSpace(s), word) })
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(h.Get("Sec-WebSocket-Key")))
	switch {
	case !has("Connection", "Upgrade"), !has("Upgrade", "websocket"):
		return sandbox.Errorf(sandbox.UpgradeRequired, nil, "this path is a WebSocket: a client of those sends Connection: Upgrade and Upgrade: websocket, and outpost shell is one")
	case !has("Sec-WebSocket-Version", "13"), err != nil || len(key) != 16 || len(h.Values("Sec-WebSocket-Key")) != 1:
		return sandbox.Errorf(sandbox.Invalid, nil, "the WebSocket's handshake must have Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key of 16 bytes in base64")
	}
	return nil
}

// pty is a terminal over a WebSocket. There is nothing that a page of another origin could do with it but by a ticket that
// somebody gave it: no cookie is looked at.
func (s *Server) pty(c *call, w http.ResponseWriter, r *http.Request) error {
	t, faults := readTerminal(c)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	if err := handshake(r.Header); err != nil {
		return err
	}
	if err := s.svc.MayOpenTerminal(c.namespace, c.id); err != nil {
		return err
	}
	if !s.streams.take(c.caller.ID) {
		return sandbox.Errorf(sandbox.RateLimited, nil, "this credential has %d streams and terminals open; close one first", maxStreams)
	}
	defer s.streams.give(c.caller.ID)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		c.trace.fails(sandbox.Errorf(sandbox.Invalid, err, "no WebSocket handshake"))
		return nil // Accept has answered
	}
	defer conn.CloseNow() //nolint:errcheck // it was closed where it matters
	conn.SetReadLimit(maxTyped)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx)) // that of a connection that was taken over ends at once
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	p := &session{conn: conn, ctx: ctx, cancel: cancel, control: make(chan func(sandbox.TerminalControl) error, 1)}
	typed, in := io.Pipe()
	defer typed.Close()
	go p.read(in)
	go p.ping()
	result, err := s.svc.Terminal(ctx, c.namespace, c.id, t, typed, p, func(f func(sandbox.TerminalControl) error) { p.control <- f })
	c.trace.fails(err)
	if result != nil {
		c.trace.touches(result.ID)
	}
	p.end(result, err)
	return nil
}

// session is one terminal's connection.
type session struct {
	conn    *websocket.Conn
	ctx     context.Context
	cancel  context.CancelFunc
	control chan func(sandbox.TerminalControl) error
	behind  atomic.Bool // more is typed than the program reads: nothing else of the client is heard
}

// Write implements io.Writer: what the terminal shows.
func (p *session) Write(b []byte) (int, error) {
	ctx, cancel := context.WithTimeout(p.ctx, answerTime)
	defer cancel()
	if err := p.conn.Write(ctx, websocket.MessageBinary, b); err != nil {
		p.cancel()
		return 0, err
	}
	return len(b), nil
}

// read hands on what is typed, and what changes the terminal, until the client goes away.
func (p *session) read(in *io.PipeWriter) {
	defer p.cancel()
	typed := make(chan []byte, typedAhead)
	defer close(typed)
	go func() {
		defer in.Close()
		for b := range typed {
			if _, err := in.Write(b); err != nil {
				p.cancel()
				return
			}
		}
	}()
	for {
		kind, b, err := p.conn.Read(p.ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageText {
			if err := p.change(b); err != nil {
				_ = p.send(sandbox.TerminalEnd{Fail: service.BodyOf(err)})
			}
			continue
		}
		p.behind.Store(true)
		select {
		case typed <- b:
		case <-p.ctx.Done():
			return
		}
		p.behind.Store(false)
	}
}

// typedAhead is how many messages may wait for a program that reads slowly, while sizes and signals go past them.
const typedAhead = 4

func (p *session) change(b []byte) error {
	var c sandbox.TerminalControl
	faults, err := strict.JSON(b, &c)
	if err == nil {
		err = faults.Err(sandbox.Invalid)
	}
	if err != nil {
		return err
	}
	select {
	case f := <-p.control:
		p.control <- f
		return f(c)
	case <-p.ctx.Done():
		return nil
	}
}

func (p *session) ping() {
	for tick := time.Tick(pingEvery); ; {
		select {
		case <-tick:
		case <-p.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(p.ctx, pingTimeout)
		err := p.conn.Ping(ctx)
		cancel()
		if err != nil && !(p.behind.Load() && errors.Is(err, context.DeadlineExceeded)) {
			p.cancel()
			return
		}
	}
}

func (p *session) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), pingTimeout)
	defer cancel()
	return p.conn.Write(ctx, websocket.MessageText, b)
}

// end tells how the program ended, and closes.
func (p *session) end(result *sandbox.ExecResult, err error) {
	if err == nil && p.ctx.Err() != nil {
		return // the client went away
	}
	last := sandbox.TerminalEnd{Exit: result}
	status, reason := websocket.StatusNormalClosure, ""
	if err != nil {
		last.Fail = service.BodyOf(err)
		status, reason = websocket.StatusInternalError, string(last.Fail.Code)
		if errors.Is(err, context.Canceled) || last.Fail.Code == sandbox.Lost {
			status = websocket.StatusGoingAway
		}
	}
	if p.send(last) == nil {
		_ = p.conn.Close(status, reason)
	}
}
