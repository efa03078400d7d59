package jobs

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

const (
	callbackTime    = 10 * time.Second
	callbackTries   = 20 // the last some fifty minutes after the first
	callbacksAtOnce = 4  // of one namespace
	callbacksInAll  = 64
	maxAnswer       = 64 << 10 // bytes of a receiver's answer that are read
)

// tellEnds posts jobs that have ended to their callbacks, until the queue closes. A receiver hears of a job at least once, or twenty tries
// failed. One that is slow holds up no job, and of the callbacks those of its own namespace alone.
func (q *Queue) tellEnds() {
	client := q.callbackClient()
	var sending sending
	tick := time.NewTicker(look)
	defer tick.Stop()
	defer sending.all.Wait()
	for {
		due, err := q.dueCallbacks(q.ctx)
		if err != nil && q.ctx.Err() == nil {
			q.o.Log.Error("callbacks could not be read", "error", err)
		}
		for _, c := range due {
			sending.begin(c, func() { q.tell(q.ctx, client, c) })
		}
		select {
		case <-tick.C:
		case <-q.ctx.Done():
			return
		}
	}
}

// sending are the callbacks under way.
type sending struct {
	all sync.WaitGroup
	mu  sync.Mutex
	ids map[string]bool
	of  map[string]int // by namespace
}

// begin sends one, unless it is under way or its namespace has enough of them.
func (s *sending) begin(c callback, send func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids, s.of = map[string]bool{}, map[string]int{}
	}
	if s.ids[c.id] || s.of[c.namespace] >= callbacksAtOnce || len(s.ids) >= callbacksInAll {
		return
	}
	s.ids[c.id] = true
	s.of[c.namespace]++
	s.all.Go(func() {
		send()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.ids, c.id)
		if s.of[c.namespace]--; s.of[c.namespace] == 0 {
			delete(s.of, c.namespace)
		}
	})
}

// callback is one that is due.
type callback struct {
	id, namespace string
	left          int
}

// dueCallbacks are the next of each namespace. Who writes waits for none of this.
func (q *Queue) dueCallbacks(ctx context.Context) (due []callback, err error) {
	namespaces, err := q.namespaces(ctx, q.gets, `callback_left > 0`)
	if err != nil {
		return nil, err
	}
	for _, namespace := range namespaces {
		if due, err = q.dueCallbacksOf(ctx, namespace, due); err != nil {
			return nil, err
		}
	}
	return due, nil
}

func (q *Queue) dueCallbacksOf(ctx context.Context, namespace string, due []callback) ([]callback, error) {
	const one = `SELECT * FROM (SELECT id, namespace, callback_left FROM jobs WHERE callback_left > 0 AND namespace = ? AND callback_due %s ? ORDER BY callback_due, seq LIMIT ?)`
	between := notDue()
	rows, err := q.gets.QueryContext(ctx, fmt.Sprintf(one+` UNION ALL `+one, "<", ">"), namespace, between[0], callbacksAtOnce, namespace, between[1], callbacksAtOnce)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err says it
	for rows.Next() {
		var c callback
		if err := rows.Scan(&c.id, &c.namespace, &c.left); err != nil {
			return nil, err
		}
		due = append(due, c)
	}
	return due, rows.Err()
}

// tell posts one job, and notes whether it was heard.
func (q *Queue) tell(ctx context.Context, client *http.Client, c callback) {
	job, spec, err := q.Job(ctx, c.namespace, c.id)
	if err == nil {
		err = q.post(ctx, client, spec, job)
	}
	q.o.Watcher.CallbackEnds(err == nil)
	left, due, state := 0, time.Now(), "heard"
	if err != nil {
		state = "waiting"
		left = c.left - 1
		due = due.Add(q.back.after(callbackTries + 1 - c.left))
		q.o.Log.Warn("a callback was not heard", "job", c.id, "namespace", c.namespace, "tries_left", left, "error", err)
	}
	if ctx.Err() != nil {
		return // the next start tells it
	}
	if err != nil && left == 0 {
		state = "given_up"
	}
	if _, err := q.db.ExecContext(ctx, `UPDATE jobs SET callback_left = ?, callback_due = ?, callback = ? WHERE id = ?`, left, due.UnixMilli(), state, c.id); err != nil {
		q.o.Log.Error("a callback could not be noted", "job", c.id, "error", err)
	}
}

// The headers of a callback.
const (
	TimestampHeader = "X-Outpost-Timestamp" // Unix seconds
	SignatureHeader = "X-Outpost-Signature" // sha256= and HMAC-SHA256 in hex of timestamp, a dot and the body, by the namespace's key
)

func (q *Queue) post(ctx context.Context, client *http.Client, spec service.JobSpec, job sandbox.Job) error {
	body, err := json.Marshal(job)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callbackTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, spec.CallbackURL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "outpost")
	r.Header.Set(TimestampHeader, stamp)
	r.Header.Set(SignatureHeader, "sha256="+Sign(q.CallbackKey(spec.Namespace), stamp, body))
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("answered %s", res.Status)
	}
	return nil
}

// Sign gives the signature of a callback's body, by the namespace's key.
func Sign(key, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(timestamp + "."))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

var errNotPublic = errors.New("the callback leads to an address that is not public")

// callbackClient connects to public addresses of other hosts alone, and to those that the operator allows: the address that is judged is the one
// connected to. It follows no redirect and no proxy.
func (q *Queue) callbackClient() *http.Client {
	d := net.Dialer{Timeout: callbackTime, Control: func(_, to string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(to)
		if err != nil {
			return err
		}
		own, err := net.InterfaceAddrs()
		if err != nil {
			return err
		}
		if !service.CallbackAllowed(at.Addr(), own, q.o.CallbackAllow) {
			return errNotPublic
		}
		return nil
	}}
	return &http.Client{
		Transport:     &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true, TLSHandshakeTimeout: callbackTime, MaxResponseHeaderBytes: maxAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
