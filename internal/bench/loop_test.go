package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// milliseconds gives the latencies of a sample in the order in which the calls ended.
func milliseconds(s Sample) []int64 {
	all := make([]int64, len(s.Micros))
	for i, us := range s.Micros {
		all[i] = us / 1000
	}
	return all
}

// taking makes calls that take so many milliseconds, one after the other; the last for ever after.
func taking(ms ...int) func(context.Context) error {
	var n atomic.Int64
	return func(context.Context) error {
		i := min(int(n.Add(1)), len(ms)) - 1
		time.Sleep(time.Duration(ms[i]) * time.Millisecond)
		return nil
	}
}

func TestLatencyCountsFromWhenACallWasDue(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name string
		plan Plan
		call func(context.Context) error
		want []int64
	}{
		{"one client, as fast as it goes", Plan{Clients: 1, Count: 3}, taking(5, 50, 5), []int64{5, 50, 5}},
		{"one client on a grid: a stall is in the calls that it delays",
			Plan{Clients: 1, Count: 7, Every: 10 * ms}, taking(1, 35, 1), []int64{1, 35, 26, 17, 8, 1, 1}},
		{"no client waits in an open loop: a stall is its own", Plan{Count: 4, Every: 10 * ms}, taking(1, 35, 1), []int64{1, 1, 1, 35}},
		{"two clients share the calls", Plan{Clients: 2, Count: 5}, taking(10), []int64{10, 10, 10, 10, 10}},
		{"a time instead of a number", Plan{Clients: 1, For: 30 * ms, Every: 10 * ms}, taking(1), []int64{1, 1, 1}},
		{"what began in time is counted though it ends later", Plan{Clients: 1, For: 25 * ms}, taking(10), []int64{10, 10, 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := tc.plan.Run(t.Context(), tc.call)
				if got := milliseconds(s); err != nil || !slices.Equal(got, tc.want) {
					t.Errorf("%v, %v, want %v", got, err, tc.want)
				}
			})
		})
	}
}

func TestCallsBeginOnTheGrid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		s, err := Plan{Clients: 1, Count: 4, Every: 20 * time.Millisecond}.Run(t.Context(), func(context.Context) error {
			at = append(at, time.Since(began))
			return nil
		})
		if err != nil || fmt.Sprint(at) != "[0s 20ms 40ms 60ms]" || s.Elapsed != 60*time.Millisecond {
			t.Errorf("calls began at %v, all took %v (%v)", at, s.Elapsed, err)
		}
	})
}

func TestAnOpenLoopIsNeverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under, most atomic.Int64
		_, err := Plan{For: 100 * time.Millisecond, Every: 10 * time.Millisecond}.Run(t.Context(), func(context.Context) error {
			most.Store(max(most.Load(), under.Add(1)))
			time.Sleep(45 * time.Millisecond)
			under.Add(-1)
			return nil
		})
		if err != nil || most.Load() != 5 {
			t.Errorf("%d calls at once, want 5: each is due 10 ms after the last and takes 45 (%v)", most.Load(), err)
		}
	})
}

func TestFailuresAreCountedOrEndTheRun(t *testing.T) {
	failing := func() func(context.Context) error {
		n := 0
		return func(context.Context) error {
			if n++; n%2 == 0 {
				return fmt.Errorf("failure %d", n)
			}
			return nil
		}
	}
	s, err := Plan{Clients: 1, Count: 5, GoOn: true}.Run(t.Context(), failing())
	if err != nil || len(s.Micros) != 3 || s.Failures != 2 || s.Failure != "failure 2" {
		t.Errorf("going on: %+v, %v", s, err)
	}
	s, err = Plan{Clients: 1, Count: 5}.Run(t.Context(), failing())
	if err == nil || err.Error() != "call 2: failure 2" || len(s.Micros) != 1 {
		t.Errorf("not going on: %+v, %v", s, err)
	}
}

func TestClearingUpIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cleared := 0
		s, err := Plan{Clients: 1, Count: 3}.Run(t.Context(), taking(5), func(context.Context) error {
			cleared++
			time.Sleep(time.Second)
			return nil
		})
		if err != nil || !slices.Equal(milliseconds(s), []int64{5, 5, 5}) || cleared != 3 {
			t.Errorf("%v, cleared %d times (%v)", milliseconds(s), cleared, err)
		}
		wrong := errors.New("it stays")
		if _, err := (Plan{Clients: 1, Count: 3}).Run(t.Context(), taking(5), func(context.Context) error { return wrong }); !errors.Is(err, wrong) {
			t.Errorf("what can't be cleared up: %v", err)
		}
	})
}

func TestARunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 55*time.Millisecond)
		defer cancel()
		for _, clients := range []int{0, 1} {
			began := time.Now()
			if _, err := (Plan{Clients: clients, Count: 1000, Every: 10 * time.Millisecond}).Run(ctx, taking(1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 60*time.Millisecond {
				t.Errorf("%d clients: %v after %v", clients, err, time.Since(began))
			}
		}
	})
}
