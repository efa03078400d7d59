package server

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// trace is what is known of a call beside its method, for its lines in the log and the audit log.
type trace struct {
	requestID string
	traceID   string // "": it is in no trace
	client    string // address and port
	route     string
	audit     string // its action
	caller    service.Caller
	namespace string

	mu       sync.Mutex // an exec may go on when its client has gone away
	err      error
	objects  [][2]string // kind and id of what it is about, in the order in which that was known
	repeated bool        // of a call with the same Idempotency-Key
	left     bool        // the client went away before the end
	ended    bool

	status int // 0: there was no answer
	took   time.Duration
	cut    bool // the answer broke off
}

type traceKey struct{}

func traceOf(r *http.Request) *trace {
	t, _ := r.Context().Value(traceKey{}).(*trace)
	return t
}

// note changes what is known, unless it has been told already.
func (t *trace) note(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		f()
	}
}

// fails notes the error that the call came to; nil is none.
func (t *trace) fails(err error) {
	if err != nil {
		t.note(func() { t.err = err })
	}
}

// leaves notes that the client went away before the end.
func (t *trace) leaves() { t.note(func() { t.left = true }) }

// ends: nothing changes from here on.
func (t *trace) ends(status int, took time.Duration, cut bool) {
	t.note(func() { t.ended, t.status, t.took, t.cut = true, status, took, cut })
}

// code is that of a call that failed. A client that went away is no failure.
func (t *trace) code() sandbox.Code {
	if t.status == clientGone {
		return ""
	}
	return sandbox.CodeOf(t.err)
}

// kinds are what ids of ours begin with.
var kinds = map[string]string{"sb": "sandbox_id", "exec": "exec_id", "job": "job_id", "key": "key_id", "pat": "token_id"}

var idForm = regexp.MustCompile(`^([a-z]+)_[0-9a-f]{12}$`)

// touches notes what the call is about, by ids. Clients write what they like in paths: what is no id of ours is left out.
func (t *trace) touches(ids ...string) {
	for _, id := range ids {
		if parts := idForm.FindStringSubmatch(id); parts != nil && kinds[parts[1]] != "" {
			t.names(kinds[parts[1]], id)
		}
	}
}

// longest is how much of a name is kept.
const longest = 512

// names notes what the call is about, by a name of a kind that has no ids; "" is none.
func (t *trace) names(kind, name string) {
	if name == "" {
		return
	}
	o := [2]string{kind, strings.ToValidUTF8(name[:min(len(name), longest)], "\uFFFD")}
	t.note(func() {
		if !slices.Contains(t.objects, o) {
			t.objects = append(t.objects, o)
		}
	})
}

var digits = regexp.MustCompile(`^[0-9]{1,10}$`)

// reads notes what the path says.
func (t *trace) reads(path chi.RouteParams) {
	for i, name := range path.Keys {
		if exec := strings.HasPrefix(path.Values[i], sandbox.ExecPrefix); exec == (name == "exec_id") {
			t.touches(path.Values[i])
		}
		if (name == "guest_port" || name == "pid") && digits.MatchString(path.Values[i]) {
			t.names(name, path.Values[i])
		}
	}
}

// makes notes the ids in what a handler answers. It looks for the fields by name, so that no handler forgets to tell.
func (t *trace) makes(body any) {
	if c, is := body.(created); is {
		body = c.body
	}
	v := reflect.Indirect(reflect.ValueOf(body))
	if v.Kind() != reflect.Struct {
		return
	}
	for _, name := range []string{"SandboxID", "ID"} {
		if f := reflect.Indirect(v.FieldByName(name)); f.IsValid() && f.Kind() == reflect.String {
			t.touches(f.String())
		}
	}
}

// repeats notes that the answer is an earlier call's.
func (t *trace) repeats(a service.Answer) {
	var ids struct {
		SandboxID string `json:"sandbox_id"`
		ID        string `json:"id"`
	}
	_ = json.Unmarshal(a.Body, &ids) // one without a body has none
	t.touches(ids.SandboxID, ids.ID)
	t.note(func() { t.repeated = true })
}
