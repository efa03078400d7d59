package bench

import (
	"fmt"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what `outpost bench --json` prints. Names are never given another meaning.
type Report struct {
	Version string            `json:"version"`
	Host    Host              `json:"host"`
	Images  map[string]string `json:"images"` // by language
	Rows    []Row             `json:"rows"`
	LeftOut []LeftOut         `json:"left_out"`
}

// Host is where it was measured.
type Host struct {
	Kernel   string `json:"kernel"`
	CPUs     int    `json:"cpus"`
	MemoryMB int64  `json:"memory_mb"`
	Cgroups  string `json:"cgroups"`    // v1, v2, or hybrid
	Client   *int   `json:"client_cpu"` // the processor that the client was pinned to; nil: there is only one
}

// LeftOut is what was not measured.
type LeftOut struct {
	Group  string `json:"group"`
	Reason string `json:"reason"`
}

// Row is one measure. Times are in milliseconds.
type Row struct {
	Group       string  `json:"group"` // as for --only
	What        string  `json:"what"`
	Language    string  `json:"language"`
	Pace        string  `json:"pace"`
	Runs        int64   `json:"runs"` // that succeeded
	Failures    int64   `json:"failures"`
	*Latency            // nil where a row is one figure
	ClientCPUMS float64 `json:"client_cpu_ms"` // processor time of who made the calls, for each
	// OverBare has P50 and P99 as multiples of bare's, both less ClientCPUMS of their rows.
	OverBare  *Ratios  `json:"over_bare,omitempty"`
	WarmShare *float64 `json:"warm_share,omitempty"` // of the execs, how many had an interpreter that was started ahead
	Figure    *Figure  `json:"figure,omitempty"`
	Targets   []Target `json:"targets,omitempty"`
	Note      string   `json:"note,omitempty"`
}

// Latency is a distribution in milliseconds.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P90 float64 `json:"p90_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
}

// Ratios are multiples of bare's.
type Ratios struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Figure is a single number.
type Figure struct {
	Unit     string   `json:"unit"`
	Value    float64  `json:"value"`
	Bare     *float64 `json:"bare,omitempty"` // the same of bare
	OverBare *float64 `json:"over_bare,omitempty"`
}

// Target is what a row is to reach: at most, or at least, Bound.
type Target struct {
	What  string  `json:"what"`
	Bound float64 `json:"bound"`
	Least bool    `json:"at_least,omitempty"`
	Is    float64 `json:"is"`
	Met   bool    `json:"met"`
}

func (r *Row) atMost(what string, bound, is float64) {
	r.Targets = append(r.Targets, Target{What: what, Bound: bound, Is: rounded(is), Met: is <= bound})
}

func (r *Row) atLeast(what string, bound, is float64) {
	r.Targets = append(r.Targets, Target{What: what, Bound: bound, Least: true, Is: rounded(is), Met: is >= bound})
}

// latency makes the distribution; nil of nothing.
func (s Sample) latency() (*Latency, error) {
	if len(s.Micros) == 0 {
		return nil, nil
	}
	const longest, digits = int64(time.Hour / time.Microsecond), 3
	h := hdrhistogram.New(1, longest, digits)
	for _, us := range s.Micros {
		if err := h.RecordValue(max(1, us)); err != nil {
			return nil, fmt.Errorf("%d µs: %w", us, err)
		}
	}
	at := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1000 }
	return &Latency{P50: at(50), P90: at(90), P99: at(99), Max: float64(h.Max()) / 1000}, nil
}

// newRow is the row of a sample.
func newRow(group, what, language, pace string, s Sample) (Row, error) {
	l, err := s.latency()
	r := Row{Group: group, What: what, Language: language, Pace: pace, Runs: int64(len(s.Micros)), Failures: s.Failures, Latency: l}
	if calls := r.Runs + r.Failures; calls > 0 {
		r.ClientCPUMS = rounded(inMS(s.OwnCPU) / float64(calls))
	}
	if s.Failures > 0 {
		r.Note = "first failure: " + s.Failure
	}
	return r, err
}

// over compares with bare's row.
func (r *Row) over(bare *Row) {
	if r.Latency != nil && bare.Latency != nil {
		r.OverBare = &Ratios{rounded(r.less(r.P50) / bare.less(bare.P50)), rounded(r.less(r.P99) / bare.less(bare.P99))}
	}
}

// less subtracts what the client itself used.
func (r *Row) less(ms float64) float64 { return ms - r.ClientCPUMS }

func inMS(d time.Duration) float64 { return rounded(float64(d.Nanoseconds()) / 1e6) }

// rounded keeps three digits after the point: more says nothing.
func rounded(v float64) float64 { return math.Round(v*1000) / 1000 }

func pointer[T any](v T) *T { return &v }
