package server

import (
	"time"

	"outpost.run/outpost/sandbox"
)

// StatusOf is the row of a code.
func StatusOf(c sandbox.Code) int { return statuses[c] }

// SetHeaderTime shortens the time for headers; undo puts it back.
func SetHeaderTime(d time.Duration) (undo func()) {
	before := headerTime
	headerTime = d
	return func() { headerTime = before }
}

// RouteOf is what the tests look at of a route.
type RouteOf struct{ Method, Path, Audit string }

// RoutesOf are those of a server.
func RoutesOf(s *Server) (all []RouteOf) {
	for _, r := range s.routes {
		all = append(all, RouteOf{r.method, r.path, r.audit})
	}
	return all
}
