package server

import (
	"net/http"
	"sync"
	"time"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/sandbox"
)

// auditBegin notes a call that is about to change something, where nothing may be changed that isn't noted. Errors: Capacity.
func (s *Server) auditBegin(t *trace) error {
	if s.audit == nil || !s.auditRequired || t.audit == "" {
		return nil
	}
	e := s.auditEntry(t)
	e.Outcome = audit.Begun
	if err := s.audit.Write(e); err != nil {
		full := sandbox.Errorf(sandbox.Capacity, err, "the server can't write its audit log, and changes nothing until it can; try again")
		full.RetryAfterSecs = 5
		return full
	}
	return nil
}

// auditCall notes how a call that changes something ended.
func (s *Server) auditCall(t *trace) {
	if s.audit == nil || t.audit == "" {
		return
	}
	e := s.auditEntry(t)
	e.Outcome, e.Repeated, e.Status, e.Code = outcome(t), t.repeated, t.status, string(t.code())
	if t.caller.ID == "" {
		var noted bool
		if e.Suppressed, noted = s.strangers.note(e.Time); !noted {
			return
		}
	}
	e.DurationMS = float64(t.took.Microseconds()) / 1000
	if err := s.audit.Write(e); err != nil {
		s.log.Error("a call is missing in the audit log", "request_id", t.requestID, "action", t.audit, "outcome", e.Outcome, "error", err)
	}
}

// strangersEvery is how often a call without a valid credential is noted: anybody can make as many as they like, and fill a disk.
const strangersEvery = time.Second

// strangers counts calls without a valid credential.
type strangers struct {
	mu         sync.Mutex
	last       time.Time // that one was noted
	suppressed int       // since then
}

// note says whether a call is noted, and how many were not since the last that was.
func (s *strangers) note(now time.Time) (suppressed int, noted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if passed := now.Sub(s.last); passed >= 0 && passed < strangersEvery {
		s.suppressed++
		return 0, false
	}
	suppressed, s.suppressed, s.last = s.suppressed, 0, now
	return suppressed, true
}

func (s *Server) auditEntry(t *trace) audit.Entry {
	e := audit.Entry{
		Time: time.Now().UTC().Truncate(time.Microsecond), RequestID: t.requestID, Action: t.audit, Namespace: t.namespace, Client: t.client,
	}
	if c := t.caller; c.ID != "" {
		e.Credential = &audit.Credential{ID: c.ID, Name: c.Name, Role: string(c.Role), Namespace: c.Namespace}
	}
	for _, o := range t.objects {
		if e.Object == nil {
			e.Object = map[string]string{}
		}
		e.Object[o[0]] = o[1]
	}
	return e
}

// outcome is what became of a call, in the audit log's words.
func outcome(t *trace) string {
	switch {
	case t.left, t.status == clientGone, t.status == 0, t.cut:
		return audit.Gone
	case t.status >= http.StatusInternalServerError:
		return audit.Failed
	case t.status >= http.StatusBadRequest:
		return audit.Refused
	case t.err != nil: // told within a stream, whose status went out before
		return audit.Failed
	}
	return audit.Done
}
