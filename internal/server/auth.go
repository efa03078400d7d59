package server

import (
	"context"
	"net/http"
	"strings"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// access is what a route asks of a caller.
type access struct {
	open   bool         // no credential at all
	role   sandbox.Role // at least; in the path's namespace where it has one
	ticket bool         // or a ticket of its sandbox
	drain  bool         // also while the server stops; what is open always is
}

var (
	openToAll = access{open: true}
	readers   = access{role: sandbox.Read}
	writers   = access{role: sandbox.Write}
	terminals = access{role: sandbox.Write, ticket: true}
	admins    = access{role: sandbox.Admin}
	operators = access{role: sandbox.Operator, drain: true}
)

// admit checks credential, rate limit, role and namespace, in that order, and fills in the caller.
//
// Errors: Unauthorized, RateLimited, Forbidden, Invalid (the namespace's name), ShuttingDown.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, rt route, c *call) error {
	if rt.access.open {
		return nil
	}
	if !rt.access.drain && s.svc.Draining() {
		return sandbox.Errorf(sandbox.ShuttingDown, nil, "the server is stopping; try again in a moment")
	}
	caller, err := s.identify(r, rt, c)
	if err != nil {
		return err
	}
	c.caller = caller
	c.trace.caller, c.trace.namespace = caller, c.namespace
	if err := s.limits.take(w.Header(), caller); err != nil {
		return err
	}
	if !strings.Contains(rt.path, "{namespace}") {
		if !caller.Role.Includes(rt.access.role) {
			return service.Forbidden("this call needs the role " + string(rt.access.role))
		}
		return nil
	}
	if !service.ValidNamespace(c.namespace) {
		f := sandbox.Faults{{Field: "namespace", Reason: "must be 1 to 63 of a-z, 0-9 and dashes, and not start with a dash"}}
		return f.Err(sandbox.Invalid)
	}
	if !caller.May(rt.access.role, c.namespace) {
		return service.Forbidden("this credential may not do that in this namespace; the call needs the role " + string(rt.access.role))
	}
	return nil
}

// identify finds the caller by its credential, or by a ticket where the route takes one.
func (s *Server) identify(r *http.Request, rt route, c *call) (service.Caller, error) {
	if ticket := r.URL.Query().Get("ticket"); rt.access.ticket && ticket != "" {
		credential, err := s.tickets.redeem(ticket, c.namespace, c.id)
		if err != nil {
			return service.Caller{}, err
		}
		return s.authenticate(r.Context(), credential)
	}
	return s.authenticate(r.Context(), r.Header.Values("Authorization"))
}

func (s *Server) authenticate(ctx context.Context, headers []string) (service.Caller, error) {
	if len(headers) != 1 {
		return service.Caller{}, service.Unauthorized()
	}
	scheme, value, _ := strings.Cut(headers[0], " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return s.svc.ByToken(ctx, value)
	case strings.EqualFold(scheme, "API-Key"):
		name, secret, _ := strings.Cut(value, "$")
		return s.svc.ByKey(ctx, name, secret)
	}
	return service.Caller{}, service.Unauthorized()
}
