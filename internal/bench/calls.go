package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"outpost.run/outpost/sandbox"
)

// interval is that of paced rows: long enough for a host to fall idle between two requests.
const interval = 200 * time.Millisecond

// pace is how a row's calls follow each other.
type pace struct {
	name string
	plan Plan
}

// paces: a busy host hides what the first call after a rest costs, so both are measured.
func (s *session) paces() []pace {
	return []pace{
		{"busy", Plan{Clients: 1, Count: s.Runs}},
		{"one each 200 ms", Plan{Clients: 1, Count: s.Paced, Every: interval}},
	}
}

// hello is a program that prints a number, and what it prints.
func hello(language string) (code, want string) {
	const n = 1
	text := map[string]func(int) string{"python": pythonText, "node": nodeText, "go": goText, "rust": rustText}[language]
	return text(n), fmt.Sprint(n)
}

// executeSide makes create + exec in one call.
func (s *session) executeSide(language string) *side {
	code, want := hello(language)
	t := &tally{}
	return &side{what: "create + exec, one call", tally: t, run: func(ctx context.Context, p Plan) (Sample, error) {
		return p.Run(ctx, func(ctx context.Context) error {
			r, err := s.server.Client.Execute(ctx, sandbox.ExecuteRequest{Language: &language, Code: &code})
			return t.check(r, err, want)
		})
	}}
}

// execSide makes execs in one ephemeral sandbox, which lives as long as the side's turn.
func (s *session) execSide(language string) *side {
	code, want := hello(language)
	t := &tally{}
	return &side{what: "exec", tally: t, run: func(ctx context.Context, p Plan) (Sample, error) {
		box, err := s.server.Client.Create(ctx, sandbox.CreateRequest{Language: &language})
		if err != nil {
			return Sample{}, err
		}
		once := func(ctx context.Context, t *tally) error {
			r, err := s.server.Client.Exec(ctx, box.ID, sandbox.ExecRequest{Code: &code})
			return t.check(r, err, want)
		}
		err = once(ctx, &tally{}) // in the machine that create made: no exec like the others
		var sample Sample
		if err == nil {
			err = s.rest(ctx)
		}
		if err == nil {
			sample, err = p.Run(ctx, func(ctx context.Context) error { return once(ctx, t) })
		}
		if gone := s.server.Client.Delete(context.WithoutCancel(ctx), box.ID); err == nil {
			err = gone
		}
		return sample, err
	}}
}

// execs measures exec beside the bare interpreter.
func (s *session) execs(ctx context.Context) error {
	for _, language := range s.group.languages {
		for _, p := range s.paces() {
			s.say("exec, %s, %s", language, p.name)
			sides := append(s.bareSides(language, true), s.execSide(language))
			if err := s.alternate(ctx, p.plan, sides...); err != nil {
				return err
			}
			rows, err := s.rows(language, p.name, sides...)
			if err != nil {
				return err
			}
			aimExec(rows[len(rows)-1], rows[0], language, p.plan.Every > 0)
			s.put(rows...)
		}
	}
	return nil
}

func aimExec(r, bare *Row, language string, paced bool) {
	switch {
	case r.OverBare == nil:
	case language == "node":
		r.atMost("p50 over bare", 0.3, r.OverBare.P50)
	case paced:
		r.atMost("p50 over bare", 0.8, r.OverBare.P50)
		r.atMost("p99 over bare's p50", 2, r.less(r.P99)/bare.less(bare.P50))
	default:
		r.atMost("p50 over bare", 0.5, r.OverBare.P50)
		r.atMost("p99 over bare's p99", 1.2, r.OverBare.P99)
	}
}

// creates measures create alone, and with the first exec.
func (s *session) creates(ctx context.Context) error {
	const language = "python"
	for _, p := range s.paces() {
		s.say("create, create + exec, %s", p.name)
		sides := append(s.bareSides(language, false), s.createSide(language, false), s.executeSide(language), s.createSide(language, true))
		if err := s.alternate(ctx, p.plan, sides...); err != nil {
			return err
		}
		rows, err := s.rows(language, p.name, sides...)
		if err != nil {
			return err
		}
		for _, r := range rows {
			switch {
			case r.What == "create":
				r.atMost("p50 ms", 2, r.less(r.P50))
				r.atMost("p99 ms", 10, r.less(r.P99))
			case strings.HasPrefix(r.What, "create + exec") && r.OverBare != nil:
				r.atMost("p50 over bare", 0.8, r.OverBare.P50)
			}
		}
		s.put(rows...)
	}
	return nil
}

// createSide makes sandboxes, with or without a first exec in them; each is deleted before the next is made.
func (s *session) createSide(language string, exec bool) *side {
	code, want := hello(language)
	x := &side{what: "create", tally: &tally{}}
	if exec {
		x.what = "create + exec, two calls"
	}
	x.run = func(ctx context.Context, p Plan) (Sample, error) {
		id := "" // of the one there is: the plan has one client
		clearUp := func(ctx context.Context) error {
			err := s.server.Client.Delete(ctx, id)
			id = ""
			return err
		}
		sample, err := p.Run(ctx, func(ctx context.Context) error {
			box, err := s.server.Client.Create(ctx, sandbox.CreateRequest{Language: &language})
			if err != nil {
				return err
			}
			id = box.ID
			if !exec {
				return nil
			}
			r, err := s.server.Client.Exec(ctx, id, sandbox.ExecRequest{Code: &code})
			return x.tally.check(r, err, want)
		}, clearUp)
		if id != "" { // its exec failed, or the bench is interrupted
			_ = clearUp(context.WithoutCancel(ctx))
		}
		return sample, err
	}
	return x
}

// coldExecs measures create + exec where no machine waits.
func (s *session) coldExecs(ctx context.Context) error {
	const language = "python"
	for _, p := range s.paces() {
		s.say("create + exec, no machines ahead, %s", p.name)
		execute := s.executeSide(language)
		execute.what = "create + exec, pool empty"
		sides := append(s.bareSides(language, false), execute)
		if err := s.alternate(ctx, p.plan, sides...); err != nil {
			return err
		}
		rows, err := s.rows(language, p.name, sides...)
		if err != nil {
			return err
		}
		if r := rows[len(rows)-1]; r.OverBare != nil {
			r.atMost("p50 over bare", 1.8, r.OverBare.P50)
		}
		s.put(rows...)
	}
	return nil
}

// compiled measures what is compiled: new to its compiler each time, and the same again.
func (s *session) compiled(ctx context.Context) error {
	for _, l := range []struct{ language, bare, alone, done string }{
		{"go", bareGo, bareGoAlone, bareGoDone}, {"rust", bareRust, "", bareRustDone},
	} {
		s.say("%s, compiled and run, for the first time and again", l.language)
		plan := Plan{Clients: 1, Count: s.Compiled}
		first, again := s.compileSide(l.language, false), s.compileSide(l.language, true)
		var bare, alone, done []*side
		if s.bare != nil {
			ref := s.report.Images[l.language]
			of := func(what, program string) []*side {
				return []*side{{what: what, run: func(_ context.Context, p Plan) (Sample, error) { return s.bare.Run(BareRun{ref, program, p}) }}}
			}
			bare, done = of("bare, compiled and run", l.bare), of("bare, the binary alone", l.done)
			if l.alone != "" {
				alone = of("bare, without the go command", l.alone)
			}
		}
		for _, sides := range [][]*side{append(append(bare, alone...), first), append(done, again)} {
			if err := s.alternate(ctx, plan, sides...); err != nil {
				return err
			}
			rows, err := s.rows(l.language, "busy", sides...)
			if err != nil {
				return err
			}
			if r := rows[len(rows)-1]; r.OverBare != nil && r.What == first.what {
				r.atMost("p50 over bare", 1.3, r.OverBare.P50)
			} else if r.OverBare != nil {
				r.atMost("p50 ms more than the binary", 20, r.less(r.P50)-rows[0].less(rows[0].P50))
			}
			s.put(rows...)
		}
	}
	return nil
}

// compileSide runs a compiled program in one call: always the same, or each time one that nobody compiled before.
func (s *session) compileSide(language string, same bool) *side {
	text := map[string]func(int) string{"go": goText, "rust": rustText}[language]
	number := int(time.Now().UnixMilli() % 1e9) // nor did an earlier bench
	x := &side{what: "create + exec, first time", tally: &tally{}}
	if same {
		x.what = "create + exec, the same again"
	}
	once := func(ctx context.Context, t *tally) error {
		if !same {
			number++
		}
		r, err := s.server.Client.Execute(ctx, sandbox.ExecuteRequest{Language: &language, Code: pointer(text(number))})
		return t.check(r, err, fmt.Sprint(number))
	}
	x.run = func(ctx context.Context, p Plan) (Sample, error) {
		return p.Run(ctx, func(ctx context.Context) error { return once(ctx, x.tally) })
	}
	if same {
		x.before = func(ctx context.Context) error { return once(ctx, &tally{}) }
	}
	return x
}
