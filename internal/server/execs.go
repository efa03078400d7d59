package server

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// how is what a call says of how its program is run.
func (c *call) how() service.How {
	return service.How{Keep: c.once, Begins: func(r *service.Running) {
		c.trace.touches(r.SandboxID, r.ID)
		if c.begins != nil {
			c.begins(r)
		}
	}}
}

func (s *Server) exec(c *call) (any, error) {
	var r sandbox.ExecRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	return answerOfExec(s.svc.Exec(c.ctx, c.namespace, c.id, r, faults, c.how()))
}

func (s *Server) execute(c *call) (any, error) {
	var r sandbox.ExecuteRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	return answerOfExec(s.svc.Execute(c.ctx, c.caller, c.namespace, r, faults, c.how()))
}

// answerOfExec is the result, or 201 with the state of a program in the background.
func answerOfExec(result *sandbox.ExecResult, state *sandbox.ExecState, err error) (any, error) {
	switch {
	case err != nil:
		return nil, err
	case state != nil:
		return created{state}, nil
	}
	return result, nil
}

// created is an answer of 201 from a route that answers 200 else.
type created struct{ body any }

var execsParams = paging(service.ExecSorts)

func (s *Server) listExecs(c *call) (any, error) {
	q, faults := readQuery(c.rawQuery, execsParams)
	p := readPaging(q, &faults)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	return s.svc.ListExecs(c.namespace, c.id, p)
}

func (s *Server) getExec(c *call) (any, error) { return s.svc.ExecState(c.namespace, c.id, c.execID) }

func (s *Server) cancelExec(c *call) (any, error) {
	return s.svc.CancelExec(c.ctx, c.namespace, c.id, c.execID)
}

const stdinDoc = "The body goes to the program as it comes, so far as the program reads: a call may last as long as the program. One call at a time. " +
	"Where the body ends the program's input ends too, unless more is true. The program ended before it took all: 409 already_finished. A body that breaks off ends nothing: the exec's input stays open."

var stdinParams = []param{{name: "more", doc: "true: more input comes by another call", enum: []string{"true", "false"}}}

// execStdin hands the body on to a program.
func (s *Server) execStdin(c *call) (any, error) {
	q, faults := readQuery(c.rawQuery, stdinParams)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	return s.svc.FeedExec(c.namespace, c.id, c.execID, service.Input{Body: c.in, Cut: c.cutBody, More: q.Get("more") == "true"})
}

// maxWaitMS is how long a call may wait for more output; proxies cut what is silent for longer.
const maxWaitMS = 60_000

var outputParams = []param{
	{name: "stream", doc: "stdout unless given", enum: []string{sandbox.Stdout, sandbox.Stderr}},
	{name: "offset", doc: "bytes of the stream to leave out; 0 unless given"},
	{name: "wait_ms", doc: "how long to wait where there is nothing yet, up to 60000; 0 unless given"},
	{name: "follow", doc: followDoc, enum: []string{"true", "false"}},
}

const followDoc = "true: where there is something, the answer goes on as the program writes, to its end, and X-Next-Offset, X-Finished and X-Total-Bytes are trailers"

// execOutput gives what there is of a stream from an offset on.
func (s *Server) execOutput(c *call, w http.ResponseWriter) error {
	return s.output(c, w, outputParams, func(_ context.Context, stream string, _ service.Seen, _ time.Time) (service.JobLog, error) {
		log, err := s.svc.ExecOutput(c.namespace, c.id, c.execID, stream)
		return service.JobLog{Output: log, Ended: true}, err
	})
}

// output answers with the bytes of a stream that find gives, perhaps only after some time.
func (s *Server) output(c *call, w http.ResponseWriter, params []param, find func(ctx context.Context, stream string, seen service.Seen, until time.Time) (service.JobLog, error)) error {
	q, faults := readQuery(c.rawQuery, params)
	offset := int64(readNumber(q, "offset", 0, 0, 1<<62, &faults))
	attempt := readNumber(q, "attempt", 0, 0, math.MaxInt, &faults)
	wait := readNumber(q, "wait_ms", 0, 0, maxWaitMS, &faults)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	stream := q.Get("stream")
	if stream == "" {
		stream = sandbox.Stdout
	}
	follows := q.Get("follow") == "true"
	if wait > 0 || follows {
		if !s.streams.take(c.caller.ID) {
			return sandbox.Errorf(sandbox.RateLimited, nil, "this credential has %d streams open or calls that wait for output; end one first", maxStreams)
		}
		defer s.streams.give(c.caller.ID)
	}
	until := time.Now().Add(time.Duration(wait) * time.Millisecond)
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	log, err := find(ctx, stream, service.Seen{Attempt: attempt, Offset: offset}, until)
	if err != nil {
		return err
	}
	if attempt > 0 && log.Attempt > attempt {
		offset = 0
	}
	if wait > 0 {
		ctx, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		_ = log.Wait(ctx, offset)
	}
	kept, total, ended := log.State()
	next := max(offset, kept)
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if log.Attempt > 0 {
		h.Set("X-Attempt", strconv.Itoa(log.Attempt))
	}
	if follows && kept > offset && !ended {
		return outputToItsEnd(ctx, w, log, offset)
	}
	sayHowFar(h, log, next, total, ended)
	h.Set("Content-Length", strconv.FormatInt(next-offset, 10))
	w.WriteHeader(http.StatusOK)
	copySlowly(w, io.NewSectionReader(log, offset, next-offset), make([]byte, 256<<10))
	return nil
}

func sayHowFar(h http.Header, log service.JobLog, next, total int64, ended bool) {
	h.Set("X-Next-Offset", strconv.FormatInt(next, 10))
	h.Set("X-Finished", strconv.FormatBool(ended && log.Ended))
	h.Set("X-Total-Bytes", strconv.FormatInt(total, 10))
}

// outputToItsEnd sends a stream as it grows, by one answer. Where the server ends before, the connection does, so that nobody takes what
// came for the whole.
func outputToItsEnd(ctx context.Context, w http.ResponseWriter, log service.JobLog, at int64) error {
	w.Header().Set("Trailer", "X-Next-Offset, X-Finished, X-Total-Bytes")
	w.WriteHeader(http.StatusOK)
	for buf := make([]byte, 64<<10); ; {
		kept, total, ended := log.State()
		n := copySlowly(w, io.NewSectionReader(log, at, max(0, kept-at)), buf)
		_ = http.NewResponseController(w).Flush() // a test's writer has none
		if at += n; ended {
			sayHowFar(w.Header(), log, at, total, ended)
			return nil
		}
		if log.Wait(ctx, at) != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// copySlowly copies to a client that may take its time, but not stand still. The answer has begun: an error ends the connection, so
// that nobody takes what came for the whole.
func copySlowly(w http.ResponseWriter, from io.Reader, buf []byte) int64 {
	n, err := io.CopyBuffer(patient{w}, struct{ io.Reader }{from}, buf)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return n
}

// patient gives each piece its own time to reach a client.
type patient struct{ to http.ResponseWriter }

// Write implements io.Writer.
func (p patient) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.to).SetWriteDeadline(time.Now().Add(answerTime)) // a test's writer has none
	return p.to.Write(b)
}

// wantsEvents says whether a client asks for server-sent events instead of one answer.
func wantsEvents(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			if kind, _, err := mime.ParseMediaType(part); err == nil && kind == "text/event-stream" {
				return true
			}
		}
	}
	return false
}

// startTime is how long an exec that has not begun may still be refused by an ordinary answer; then its stream begins, since proxies
// and clients wait for no answer without end.
const startTime = 10 * time.Second

// liveExec runs the call's handler and tells of the program while it runs, as server-sent events; what is refused before the
// program starts is an ordinary answer.
func (s *Server) liveExec(w http.ResponseWriter, r *http.Request, rt route, c *call) {
	began, ended := make(chan *service.Running, 1), make(chan service.Answer, 1)
	c.begins = func(run *service.Running) { began <- run }
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.panicked(r, p)
				err := failed()
				c.trace.fails(err)
				ended <- answerOf(0, nil, err)
			}
		}()
		a, err := s.answer(r, rt, c)
		c.trace.fails(err)
		ended <- a
	}()
	var run *service.Running
	select {
	case run = <-began:
		select {
		case <-run.Begun:
		case <-run.Done:
		case <-time.After(startTime):
		}
	case a := <-ended: // it was refused, or is the answer of an earlier call with the same key
		s.write(w, r, a)
		return
	}
	if run.Background { // there is nothing to follow here: its output is told by execs
		a := <-ended
		s.write(w, r, a)
		return
	}
	select {
	case <-run.Done:
		a := <-ended
		if a.Status != http.StatusOK {
			s.write(w, r, a)
			return
		}
		ended <- a
	default:
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	out := newStream(w)
	defer out.live(ctx)()
	if s.tell(ctx, out, run) != nil {
		c.trace.leaves() // nobody listens any more
		return
	}
	select {
	case a := <-ended:
		_ = out.send(lastEvent(s, w, r, a))
	case <-ctx.Done():
		c.trace.leaves()
	}
}

// tell sends what a program says until it has ended, or one of its streams can't be sent.
func (s *Server) tell(ctx context.Context, out *stream, run *service.Running) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := out.event("start", map[string]string{"id": run.ID, "sandbox_id": run.SandboxID}); err != nil {
		return err
	}
	both := make(chan error, 2)
	for name, log := range map[string]*service.Output{sandbox.Stdout: run.Stdout, sandbox.Stderr: run.Stderr} {
		go func() { both <- follow(ctx, out, name, log, run.Base64) }()
	}
	err := <-both
	if err != nil {
		cancel()
	}
	return cmp.Or(err, <-both)
}

// piece is the data of an event of output.
type piece struct {
	Offset int64   `json:"offset"` // bytes of the stream before it
	Text   *string `json:"text,omitempty"`
	Base64 []byte  `json:"base64,omitempty"`
}

// follow sends a stream as it grows, to its end, which comes early where the log is dropped. No piece of text ends within a character
// that goes on.
func follow(ctx context.Context, out *stream, name string, log *service.Output, base64 bool) error {
	buf := make([]byte, 4<<10)
	for at, held := int64(0), 0; ; {
		if err := log.Wait(ctx, at+int64(held)); err != nil {
			return err
		}
		kept, _, ended := log.State()
		if at >= kept && ended {
			return nil
		}
		n, err := log.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			return err
		}
		b := buf[:n]
		if last := ended && at+int64(n) == kept; !base64 && !last {
			b = service.WholeCharacters(b)
		}
		if n == len(buf) && n < 64<<10 {
			buf = make([]byte, 64<<10)
		}
		if held = n - len(b); len(b) == 0 {
			continue
		}
		held = 0
		p := piece{Offset: at}
		if base64 {
			p.Base64 = b
		} else {
			text := service.Text(b)
			p.Text = &text
		}
		if err := out.event(name, p); err != nil {
			return err
		}
		at += int64(len(b))
	}
}

// lastEvent is exit with the result less its output, or error.
func lastEvent(s *Server, w http.ResponseWriter, r *http.Request, a service.Answer) string {
	if a.Status != http.StatusOK {
		return eventText("error", s.errorBody(w, r, a))
	}
	var result map[string]json.RawMessage
	if err := json.Unmarshal(a.Body, &result); err != nil {
		panic(err) // answerOf wrote it
	}
	delete(result, "stdout")
	delete(result, "stderr")
	return eventText("exit", encode(result))
}
