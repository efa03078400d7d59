package server

import (
	"context"
	"net/http"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Follow sends what a log of text has, and is going to have, as events.
func Follow(ctx context.Context, w http.ResponseWriter, log *service.Output) error {
	return follow(ctx, newStream(w), sandbox.Stdout, log, false)
}

// Live is a stream that says that it is there, until end.
func Live(ctx context.Context, w http.ResponseWriter) (end func()) { return newStream(w).live(ctx) }

// StatusOf is the row of a code.
func StatusOf(c sandbox.Code) int { return statuses[c] }

// SetHeaderTime shortens the time for headers; undo puts it back.
func SetHeaderTime(d time.Duration) (undo func()) {
	before := headerTime
	headerTime = d
	return func() { headerTime = before }
}

// Changing are the routes that change something by their method, each with its action in the audit log.
func (s *Server) Changing() map[string]string {
	all := map[string]string{}
	for _, r := range s.routes {
		if r.method != "GET" && r.method != "HEAD" || r.hijacks != nil {
			all[r.method+" "+r.path] = r.audit
		}
	}
	return all
}

// Audited are the actions of the routes that only read; there should be none.
func (s *Server) Audited() (wrong []string) {
	for _, r := range s.routes {
		if (r.method == "GET" || r.method == "HEAD") && r.hijacks == nil && r.audit != "" {
			wrong = append(wrong, r.path)
		}
	}
	return wrong
}
