package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	clients = 8
	// drained is how long a closed loop runs before it counts: what a pool held ready is used up by then.
	drained = 2 * time.Second
	burst   = 100
)

// rates measures execs a second in a closed loop.
func (s *session) rates(ctx context.Context) error {
	for _, language := range s.group.languages {
		if _, err := s.rateOf(ctx, language); err != nil {
			return err
		}
	}
	return nil
}

// rateOf measures and remembers the rate of a language, less the client's processor time.
func (s *session) rateOf(ctx context.Context, language string) (float64, error) {
	if s.rate[language] > 0 {
		return s.rate[language], nil
	}
	s.say("%d clients, %s", clients, language)
	execute := s.executeSide(language)
	execute.before = func(ctx context.Context) error {
		_, err := execute.run(ctx, Plan{Clients: clients, For: min(drained, s.Window/2)})
		return err
	}
	sides := append(s.bareSides(language, false), execute)
	if err := s.alternate(ctx, Plan{Clients: clients, For: s.Window / 2}, sides...); err != nil {
		return 0, err
	}
	rows, err := s.rows(language, fmt.Sprintf("%d clients", clients), sides...)
	if err != nil {
		return 0, err
	}
	for i, x := range sides {
		rows[i].Figure = &Figure{Unit: "execs/s", Value: rounded(s.perSecond(x))}
		rows[i].OverBare = nil // with more clients than processors a latency is the rate's other side
	}
	r := rows[len(rows)-1]
	if len(sides) > 1 {
		r.Figure.Bare = pointer(rows[0].Figure.Value)
		r.Figure.OverBare = pointer(rounded(r.Figure.Value / rows[0].Figure.Value))
		r.atLeast("rate over bare", 0.6, *r.Figure.OverBare)
		r.atLeast("rate over bare, where a template forks", 0.8, *r.Figure.OverBare)
	}
	s.put(rows...)
	s.rate[language] = r.Figure.Value
	return r.Figure.Value, nil
}

// perSecond is a rate.
func (s *session) perSecond(x *side) float64 {
	return float64(len(x.sample.Micros)) / s.less(x.sample).Seconds()
}

// less is how long a run of many at once would have taken, had its client had a processor of its own beside the others.
func (s *session) less(x Sample) time.Duration {
	return x.Elapsed - x.OwnCPU/time.Duration(s.report.Host.CPUs)
}

// open measures a load that does not wait for answers.
func (s *session) open(ctx context.Context) error {
	const language = "python"
	rate, err := s.rateOf(ctx, language)
	if err != nil {
		return err
	}
	every := time.Duration(float64(time.Second) / (rate / 2))
	s.say("open loop, %.1f/s for %v", rate/2, s.Window)
	if err := s.rest(ctx); err != nil {
		return err
	}
	x := s.executeSide(language)
	if x.sample, err = x.run(ctx, Plan{For: s.Window, Every: every, GoOn: true}); err != nil {
		return err
	}
	rows, err := s.rows(language, fmt.Sprintf("open at %.1f/s", rate/2), x)
	if err != nil {
		return err
	}
	if r := rows[0]; r.Latency != nil {
		r.atMost("p99 over p50", 5, r.P99/r.P50)
		r.atMost("failures", 0, float64(r.Failures))
	}
	s.put(rows...)
	return nil
}

// burst measures many at once where no machine waits.
func (s *session) burst(ctx context.Context) error {
	const language = "python"
	s.say("%d at once, no machines ahead", burst)
	execute := s.executeSide(language)
	sides := append(s.bareSides(language, false), execute)
	took := make([][]float64, len(sides)) // ms, of each burst
	for range min(3, max(1, s.Runs/10)) {
		for i, x := range sides {
			if err := s.rest(ctx); err != nil {
				return err
			}
			sample, err := x.run(ctx, Plan{Clients: burst, Count: burst, GoOn: true})
			if err != nil {
				return err
			}
			x.sample.add(sample)
			took[i] = append(took[i], inMS(s.less(sample)))
		}
	}
	rows, err := s.rows(language, fmt.Sprintf("%d at once", burst), sides...)
	if err != nil {
		return err
	}
	for i := range sides {
		rows[i].Figure = &Figure{Unit: "ms for all", Value: median(took[i])}
		rows[i].OverBare = nil
	}
	r := rows[len(rows)-1]
	r.atMost("failures", 0, float64(r.Failures))
	if len(sides) > 1 {
		r.Figure.Bare = pointer(rows[0].Figure.Value)
		r.Figure.OverBare = pointer(rounded(r.Figure.Value / rows[0].Figure.Value))
		r.atMost("time over bare", 1.6, *r.Figure.OverBare)
	}
	s.put(rows...)
	return nil
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
