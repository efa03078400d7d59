package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"outpost.run/outpost/sandbox"
)

// heartbeat is how often a stream that has nothing to say says that it lives.
var heartbeat = 15 * time.Second // shorter in a test

var eventParams = []param{{name: "since", doc: "a seq: what came after it is told first; only new events unless given"}}

// events streams those of a namespace, or of the sandbox of the path, as server-sent events.
func (s *Server) events(c *call, w http.ResponseWriter) error {
	q, faults := readQuery(c.rawQuery, eventParams)
	var since *uint64
	if q.Has("since") {
		n, err := strconv.ParseUint(q.Get("since"), 10, 63)
		if err != nil {
			faults.Add("since", "must be the seq of an event, or 0")
		}
		since = &n
	}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return err
	}
	if !s.streams.take(c.caller.ID) {
		return sandbox.Errorf(sandbox.RateLimited, nil, "this credential has %d streams of events open; close one first", maxStreams)
	}
	defer s.streams.give(c.caller.ID)
	out := newStream(w)
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	end := out.live(ctx)
	err := s.svc.Events(ctx, c.namespace, c.id, since, func(e sandbox.Event) error {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return out.send(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Type, text))
	})
	end()
	if out.begun() {
		return nil // it ended as streams end: by its client or by the server's stop
	}
	return err
}

// stream is an answer of server-sent events. Source: HTML Living Standard, 9.2.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController

	mu    sync.Mutex
	began bool
}

func newStream(w http.ResponseWriter) *stream {
	return &stream{w: w, rc: http.NewResponseController(w)}
}

func (o *stream) begun() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.began
}

// live says at once, and then every heartbeat, that the stream is there, until end: nobody may write to an answer whose handler has returned.
func (o *stream) live(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { o.beat(ctx) })
	return func() { cancel(); beats.Wait() }
}

func (o *stream) beat(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for first := time.After(20 * time.Millisecond); ; { // an error comes before that, as an ordinary answer
		select {
		case <-first:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil || o.send(": alive\n\n") != nil {
			return
		}
	}
}

func (o *stream) send(text string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.began {
		o.began = true
		o.w.Header().Set("Content-Type", "text/event-stream")
		o.w.WriteHeader(http.StatusOK)
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(answerTime)) // a test's writer has none
	if _, err := o.w.Write([]byte(text)); err != nil {
		return err
	}
	return o.rc.Flush()
}

// event sends one event with its data as JSON.
func (o *stream) event(name string, data any) error { return o.send(eventText(name, encode(data))) }

// eventText is an event as it travels; data is one line of JSON with its end.
func eventText(name string, data []byte) string {
	return "event: " + name + "\ndata: " + string(data) + "\n"
}

// maxStreams is how many streams one credential may have open: each holds a connection for as long as it likes.
const maxStreams = 64

// streams counts the open ones by credential.
type streams struct {
	mu   sync.Mutex
	open map[string]int
}

func (s *streams) take(credential string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[credential] >= maxStreams {
		return false
	}
	if s.open == nil {
		s.open = map[string]int{}
	}
	s.open[credential]++
	return true
}

func (s *streams) give(credential string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[credential]--; s.open[credential] == 0 {
		delete(s.open, credential)
	}
}
