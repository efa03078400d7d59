package policy

import (
	"fmt"
	"strings"

	"outpost.run/outpost/sandbox"
)

// health fills in the defaults of the contract.
func health(r *sandbox.HealthCheckRequest, faults *sandbox.Faults) sandbox.HealthCheck {
	h := sandbox.HealthCheck{IntervalSecs: 30, TimeoutSecs: 10, Retries: 3, StartPeriodSecs: 60}
	if r == nil {
		return h
	}
	for _, f := range []struct {
		to   *int
		from *int
	}{{&h.IntervalSecs, r.IntervalSecs}, {&h.TimeoutSecs, r.TimeoutSecs}, {&h.Retries, r.Retries}, {&h.StartPeriodSecs, r.StartPeriodSecs}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if r.Command != nil && r.HTTP != nil {
		faults.Add("health_check.http", "stands instead of command; give one of the two")
	}
	if r.Command != nil && (len(r.Command) == 0 || r.Command[0] == "") {
		faults.Add("health_check.command", "must name a program")
	}
	for i, word := range r.Command {
		noNUL(fmt.Sprintf("health_check.command[%d]", i), word, faults)
	}
	h.Command = r.Command
	if r.HTTP != nil && r.HTTP.Port != nil {
		h.HTTP = &sandbox.HTTPCheck{Port: *r.HTTP.Port, Path: "/"}
		if r.HTTP.Path != nil {
			h.HTTP.Path = *r.HTTP.Path
			if !strings.HasPrefix(h.HTTP.Path, "/") || strings.ContainsFunc(h.HTTP.Path, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
				faults.Add("health_check.http.path", "must start with / and have no blanks")
			}
		}
	}
	return h
}
