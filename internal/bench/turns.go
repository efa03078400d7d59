package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"outpost.run/outpost/sandbox"
)

// rest waits until the server is at rest, where that can be known.
func (s *session) rest(ctx context.Context) error {
	if s.meter == nil {
		return nil
	}
	return s.meter.rest(ctx)
}

// side is one of the things that are measured in turns, so that what else the host does meets them alike.
type side struct {
	what   string
	run    func(context.Context, Plan) (Sample, error)
	before func(context.Context) error // each turn, unmeasured
	tally  *tally                      // nil: it is bare
	sample Sample
}

// turns of each side; few, so that each is long enough for a pool to run dry where it would in a long run.
const turns = 4

// alternate runs the sides in turns, count calls each in all, or for a time each.
func (s *session) alternate(ctx context.Context, plan Plan, sides ...*side) error {
	count, window := plan.Count, plan.For
	if err := s.acquaint(ctx, plan, sides...); err != nil {
		return err
	}
	for turn := range turns {
		plan.Count = count*(turn+1)/turns - count*turn/turns
		plan.For = window / turns
		if count > 0 && plan.Count == 0 {
			continue
		}
		for _, x := range sides {
			if err := s.rest(ctx); err != nil {
				return err
			}
			if x.before != nil {
				if err := x.before(ctx); err != nil {
					return err
				}
			}
			sample, err := x.run(ctx, plan)
			x.sample.add(sample)
			if err != nil {
				return fmt.Errorf("%s: %w", x.what, err)
			}
		}
	}
	return nil
}

// acquaint runs each side of the server for two turns, unmeasured: a pool learns the demand as it comes, and what is measured is what
// those find who come after.
func (s *session) acquaint(ctx context.Context, plan Plan, sides ...*side) error {
	plan.Count /= turns
	if plan.Count == 0 {
		return nil
	}
	for _, x := range sides {
		if x.tally == nil {
			continue
		}
		for range 2 {
			if _, err := x.run(ctx, plan); err != nil {
				return fmt.Errorf("%s: %w", x.what, err)
			}
			if err := s.rest(ctx); err != nil {
				return err
			}
		}
		x.tally.clear()
	}
	return nil
}

// bareSides are the image's own interpreter and, where there is one, the host's; none without bare.
func (s *session) bareSides(language string, all bool) []*side {
	if s.bare == nil {
		return nil
	}
	ref := s.report.Images[language]
	of := func(what, program string) *side {
		return &side{what: what, run: func(_ context.Context, p Plan) (Sample, error) { return s.bare.Run(BareRun{ref, program, p}) }}
	}
	sides := []*side{of("bare", language)}
	if all {
		other := of("the host's own", language+" of the host")
		if _, err := s.bare.Run(BareRun{ref, language + " of the host", Plan{Clients: 1, Count: 1}}); err != nil {
			s.say("the host has no %s of its own to show beside: %v", language, err)
		} else {
			sides = append(sides, other)
		}
	}
	return sides
}

// tally keeps what results say.
type tally struct {
	mu    sync.Mutex
	execs int64
	warm  int64
	cpu   float64 // ms
}

// check takes a result, and refuses one that is not the program's: a fast failure is no figure.
func (t *tally) check(r sandbox.ExecResult, err error, want string) error {
	if err != nil {
		return err
	}
	if r.ExitCode != 0 || strings.TrimSpace(r.Stdout) != want {
		return fmt.Errorf("the program ended with %d (%s): %s%s", r.ExitCode, r.TerminationReason, r.Stdout, r.Stderr)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.execs++
	t.cpu += r.Usage.CPUMS
	if r.Start == "warm" {
		t.warm++
	}
	return nil
}

func (t *tally) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.execs, t.warm, t.cpu = 0, 0, 0
}

func (t *tally) share() *float64 {
	if t == nil || t.execs == 0 {
		return nil
	}
	return pointer(rounded(float64(t.warm) / float64(t.execs)))
}

// rows makes the sides' rows; the first is bare's where there is bare.
func (s *session) rows(language, pace string, sides ...*side) ([]*Row, error) {
	var rows []*Row
	for _, x := range sides {
		r, err := newRow(s.group.Name, x.what, language, pace, x.sample)
		if err != nil {
			return nil, err
		}
		r.WarmShare = x.tally.share()
		if sides[0].tally == nil && x.tally != nil {
			r.over(rows[0])
		}
		rows = append(rows, &r)
	}
	return rows, nil
}

func (s *session) put(rows ...*Row) {
	for _, r := range rows {
		s.report.Rows = append(s.report.Rows, *r)
	}
}
