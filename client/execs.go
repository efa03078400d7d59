package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"outpost.run/outpost/sandbox"
)

// Background starts a program in a stateful sandbox and gives its exec at once; ExecState and Output tell of it.
func (c *Client) Background(ctx context.Context, id string, r sandbox.ExecRequest) (sandbox.ExecState, error) {
	yes := true
	r.Background = &yes
	return call[sandbox.ExecState](ctx, c, http.MethodPost, c.inNamespace(id, "exec"), r)
}

// Live is where the output of a program goes while it runs; a nil writer drops it.
type Live struct {
	Started        func(sandboxID, execID string)
	Stdout, Stderr io.Writer
	Stdin          io.Reader // after the request's, as it comes, to its end; nil: nothing
}

// ExecLive runs one program in a sandbox and passes its output on as it comes; the result has none. When ctx ends, the program
// is killed (by on_disconnect).
func (c *Client) ExecLive(ctx context.Context, id string, r sandbox.ExecRequest, live Live) (sandbox.ExecResult, error) {
	r.StdinOpen = live.open(r.StdinOpen)
	return c.live(ctx, c.inNamespace(id, "exec"), r, live)
}

// ExecuteLive is ExecLive for Execute.
func (c *Client) ExecuteLive(ctx context.Context, r sandbox.ExecuteRequest, live Live) (sandbox.ExecResult, error) {
	r.StdinOpen = live.open(r.StdinOpen)
	return c.live(ctx, c.inNamespace("execute"), r, live)
}

func (l Live) open(asked *bool) *bool {
	if l.Stdin != nil {
		return new(true)
	}
	return asked
}

// FeedExec gives input to a program whose exec has stdin_open, as it comes; where it ends the program's input does, unless more follows
// by another call. It returns when the program has taken all. Error AlreadyFinished: it ended before that. A connection that breaks is
// noticed when from's Read returns.
func (c *Client) FeedExec(ctx context.Context, id, execID string, from io.Reader, more bool) (bytes int64, err error) {
	path := c.inNamespace(id, "execs", execID, "stdin")
	if more {
		path += "?more=true"
	}
	body, in := io.Pipe() // a reader that waits holds up nothing when ctx ends
	defer body.Close()
	defer context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })()
	go func() {
		_, err := io.Copy(in, from)
		in.CloseWithError(err)
	}()
	taken, err := call[sandbox.StdinTaken](ctx, c, http.MethodPost, path, bytesBody{body, -1, "application/octet-stream"})
	return taken.Bytes, err
}

// inputPatience is how long a program whose input broke off may take to tell that it ended.
const inputPatience = 2 * time.Second

func (c *Client) live(ctx context.Context, path string, body any, live Live) (result sandbox.ExecResult, err error) {
	res, err := c.send(ctx, http.MethodPost, path, body, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return result, err
	}
	defer res.Body.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := false
	err = events(res.Body, func(name string, data []byte) error {
		switch name {
		case "start":
			var s struct {
				ID        string `json:"id"`
				SandboxID string `json:"sandbox_id"`
			}
			err := json.Unmarshal(data, &s)
			if live.Stdin != nil {
				go func() {
					if _, err := c.FeedExec(ctx, s.SandboxID, s.ID, live.Stdin, false); err != nil && sandbox.CodeOf(err) != sandbox.AlreadyFinished {
						if errors.Is(err, ErrSevered) { // so may the answer of a program that did not want all of it
							pause(ctx, inputPatience)
						}
						cancel(fmt.Errorf("the program's input: %w", err))
						res.Body.Close()
					}
				}()
			}
			if live.Started != nil {
				live.Started(s.SandboxID, s.ID)
			}
			return err
		case sandbox.Stdout:
			return pass(live.Stdout, data)
		case sandbox.Stderr:
			return pass(live.Stderr, data)
		case "exit":
			ended = true
			return json.Unmarshal(data, &result)
		case "error":
			return errorOf(res, data)
		}
		return nil
	})
	if err == nil && !ended || errors.As(err, new(readError)) {
		err = c.severed(err)
	}
	if !ended && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}

// pass hands on the piece of output in an event.
func pass(to io.Writer, data []byte) error {
	var p struct {
		Text   *string `json:"text"`
		Base64 []byte  `json:"base64"`
	}
	if err := json.Unmarshal(data, &p); err != nil || to == nil {
		return err
	}
	if p.Text != nil {
		p.Base64 = []byte(*p.Text)
	}
	_, err := to.Write(p.Base64)
	return err
}

// maxEvent bounds one event: the end of an exec has 8 MiB of collected files in it, of which JSON's escapes make six times as much.
const maxEvent = 64 << 20

// readError is what went wrong with a stream itself, not with who was told of it.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// events reads server-sent events, each with its name and data, until the stream ends or tell returns an error.
func events(r io.Reader, tell func(name string, data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxEvent)
	name := ""
	for lines.Scan() {
		if word, is := strings.CutPrefix(lines.Text(), "event: "); is {
			name = word
		}
		data, is := strings.CutPrefix(lines.Text(), "data: ")
		if !is {
			continue
		}
		if err := tell(name, []byte(data)); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return readError{err}
	}
	return lines.Err()
}

// Execs gives those of a sandbox that run or ended in the last ten minutes, the newest first, without results.
func (c *Client) Execs(ctx context.Context, id string) ([]sandbox.ExecState, error) {
	return every(func(page int) (sandbox.Page[sandbox.ExecState], error) {
		return call[sandbox.Page[sandbox.ExecState]](ctx, c, http.MethodGet, c.inNamespace(id, "execs")+ListOptions{Page: page, PerPage: maxPerPage}.query(), nil)
	})
}

// ExecState gives an exec, with its result where it has ended.
func (c *Client) ExecState(ctx context.Context, id, execID string) (sandbox.ExecState, error) {
	return call[sandbox.ExecState](ctx, c, http.MethodGet, c.inNamespace(id, "execs", execID), nil)
}

// AwaitExec waits until an exec has ended.
func (c *Client) AwaitExec(ctx context.Context, id, execID string) (sandbox.ExecState, error) {
	if err := c.FollowExec(ctx, id, execID, sandbox.Stdout, atTheEnd, io.Discard); err != nil {
		return sandbox.ExecState{}, err
	}
	return c.ExecState(ctx, id, execID)
}

// CancelExec kills the program of an exec. Error AlreadyFinished: it has ended.
func (c *Client) CancelExec(ctx context.Context, id, execID string) (sandbox.ExecState, error) {
	return call[sandbox.ExecState](ctx, c, http.MethodPost, c.inNamespace(id, "execs", execID, "cancel"), nil)
}

// followWait is how long one call waits for more output.
const followWait = 20 * time.Second

// followTries is how often in a row no server may answer who follows: for half a minute, in which one that was ended is started again.
const followTries = 20

// atTheEnd is an offset that no stream reaches: who follows from there hears of nothing but the end.
const atTheEnd = 1 << 60

// Output is a part of a stream.
type Output struct {
	io.ReadCloser       // its bytes
	Next          int64 // the offset after them
	Total         int64 // what the program has written until now, or all; where Finished it may be more than Next: the rest is lost
	Finished      bool  // no more can come
	Attempt       int   // of a job: whose output it is; 0: none began, or it is an exec's
}

// ExecOutput gives what there is of a stream (stdout or stderr) of an exec from an offset on; where there is nothing yet it waits for
// that long.
func (c *Client) ExecOutput(ctx context.Context, id, execID, stream string, offset int64, wait time.Duration) (Output, error) {
	return c.output(ctx, c.inNamespace(id, "execs", execID, "output"), stream, offset, 0, wait)
}

func (c *Client) output(ctx context.Context, path, stream string, offset int64, attempt int, wait time.Duration) (Output, error) {
	o, _, err := c.outputBy(ctx, path, stream, offset, attempt, wait, false)
	return o, err
}

// outputBy gives the answer too, for one that follows: its trailers say what o can't.
func (c *Client) outputBy(ctx context.Context, path, stream string, offset int64, attempt int, wait time.Duration, follow bool) (o Output, res *http.Response, err error) {
	q := url.Values{"stream": {stream}, "offset": {strconv.FormatInt(offset, 10)}, "wait_ms": {strconv.FormatInt(wait.Milliseconds(), 10)}}
	if follow {
		q.Set("follow", "true")
	}
	if attempt > 0 {
		q.Set("attempt", strconv.Itoa(attempt))
	}
	res, err = c.send(ctx, http.MethodGet, path+"?"+q.Encode(), nil, nil)
	if err != nil {
		return o, nil, err
	}
	o = Output{ReadCloser: res.Body}
	o.Attempt, _ = strconv.Atoi(res.Header.Get("X-Attempt"))
	if len(res.Trailer) == 0 {
		if err = o.saysHowFar(res.Header); err != nil {
			res.Body.Close()
		}
	}
	return o, res, err
}

func (o *Output) saysHowFar(h http.Header) (err error) {
	if o.Next, err = strconv.ParseInt(h.Get("X-Next-Offset"), 10, 64); err != nil {
		return errors.New("an answer with output has no X-Next-Offset")
	}
	o.Total, _ = strconv.ParseInt(h.Get("X-Total-Bytes"), 10, 64)
	o.Finished = h.Get("X-Finished") == "true"
	return nil
}

// CutError says that what was followed is all that there is, but not all that the program wrote: the server keeps so much of a stream.
type CutError struct{ Kept, Total int64 }

// Error implements error.
func (e *CutError) Error() string {
	return fmt.Sprintf("the output was cut: %d of %d bytes are kept", e.Kept, e.Total)
}

// FollowExec copies a stream of an exec from an offset on to to until the program has ended. A connection that breaks is made anew where
// the last one ended. A *CutError comes after all that there is.
func (c *Client) FollowExec(ctx context.Context, id, execID, stream string, offset int64, to io.Writer) error {
	return c.follow(ctx, c.inNamespace(id, "execs", execID, "output"), stream, offset, to, nil)
}

func (c *Client) follow(ctx context.Context, path, stream string, offset int64, to io.Writer, begins func(attempt int)) error {
	for failures, attempt := 0, 0; ; {
		o, res, err := c.outputBy(ctx, path, stream, offset, attempt, followWait, true)
		if err == nil && o.Attempt > attempt {
			if attempt > 0 {
				offset = 0
			}
			if attempt = o.Attempt; begins != nil {
				begins(attempt)
			}
		}
		if err == nil {
			var n int64
			n, err = io.Copy(counted{to}, o)
			o.Close()
			if err == nil && len(res.Trailer) > 0 {
				err = o.saysHowFar(res.Trailer)
			}
			if offset += n; n > 0 {
				failures = 0
			}
			switch {
			case err == nil && o.Finished && o.Total > o.Next:
				return &CutError{o.Next, o.Total}
			case err == nil && o.Finished:
				return nil
			}
		}
		if e, is := errors.AsType[*sandbox.Error](err); is && (e.Code == sandbox.RateLimited || e.Code == sandbox.Capacity) { // others follow; one of them will end
			pause(ctx, time.Duration(max(1, e.RetryAfterSecs))*time.Second)
			continue
		}
		var mine writeError
		var status *StatusError
		restarts := sandbox.CodeOf(err) == sandbox.ShuttingDown // the next server has the rest
		if errors.As(err, &mine) || errors.As(err, &status) && !restarts || ctx.Err() != nil {
			return err
		}
		if err != nil {
			if failures++; failures > followTries {
				return err
			}
			pause(ctx, min(time.Duration(failures)*200*time.Millisecond, 2*time.Second))
		}
	}
}

// pause lets time pass, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// counted tells a writer's error from a reader's.
type counted struct{ io.Writer }

type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// Write implements io.Writer.
func (w counted) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		err = writeError{err}
	}
	return n, err
}
