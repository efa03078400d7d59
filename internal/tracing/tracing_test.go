package tracing_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/tracing"
)

// counts are what Count hears.
type counts struct{ ended, sent, failed atomic.Int64 }

func (c *counts) SpansEnded(n int)  { c.ended.Add(int64(n)) }
func (c *counts) SpansSent(n int)   { c.sent.Add(int64(n)) }
func (c *counts) SpansFailed(n int) { c.failed.Add(int64(n)) }

// start traces to a collector that answers with the statuses, in turn, and then 200; got gives the names that came with a 200.
func start(t *testing.T, sample float64, statuses ...int) (_ *tracing.Tracing, c *counts, log *bytes.Buffer, got func() []string) {
	t.Helper()
	var mu sync.Mutex
	var names []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if len(statuses) > 0 {
			w.WriteHeader(statuses[0])
			statuses = statuses[1:]
			return
		}
		var data tracepb.TracesData
		if err := proto.Unmarshal(body, &data); err != nil || r.URL.Path != "/of/ours" {
			t.Errorf("%s: %v", r.URL, err)
		}
		for _, of := range data.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				for _, s := range scope.Spans {
					names = append(names, s.Name)
				}
			}
		}
	}))
	t.Cleanup(server.Close)
	c, log = &counts{}, &bytes.Buffer{}
	tr, err := tracing.Start(t.Context(), tracing.Options{Endpoint: server.URL + "/of/ours", Sample: sample, Log: slog.New(slog.NewTextHandler(log, nil)), Count: c})
	if err != nil {
		t.Fatal(err)
	}
	return tr, c, log, func() []string { mu.Lock(); defer mu.Unlock(); return names }
}

func remote(sampled bool) context.Context {
	flags := trace.TraceFlags(0)
	return trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 15: 1}, SpanID: trace.SpanID{2}, TraceFlags: flags.WithSampled(sampled), Remote: true,
	}))
}

func TestWhatIsSampled(t *testing.T) {
	for _, c := range []struct {
		name   string
		sample float64
		ctx    context.Context
		want   bool
	}{
		{"all", 1, context.Background(), true},
		{"none", 0, context.Background(), false},
		{"none, and a client that wants it", 0, remote(true), false},
		{"all, and a client that wants it", 1, remote(true), true},
		{"all, and a client that wants none", 1, remote(false), false},
	} {
		tr, counts, _, got := start(t, c.sample)
		ctx, call := tr.Tracer().Start(c.ctx, "call")
		_, part := phase.Begin(ctx, "part")
		part.Note("a", "b")
		part.End(io.EOF)
		call.End()
		_, late := phase.Begin(ctx, "late")
		late.End(nil)
		phase.Past(ctx, "past", time.Now(), time.Now())
		if err := tr.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		want := map[bool]string{true: "part call late past"}[c.want]
		if names := strings.Join(got(), " "); names != want || counts.sent.Load() != counts.ended.Load() || counts.failed.Load() != 0 {
			t.Errorf("%s: %q, %d sent, %d ended", c.name, names, counts.sent.Load(), counts.ended.Load())
		}
	}
}

func TestACollectorThatIsBusyIsAskedAgainAndOneThatRefusesIsNot(t *testing.T) {
	for status, want := range map[int]int64{503: 1, 400: 0, 302: 0} {
		tr, counts, log, _ := start(t, 1, status)
		_, call := tr.Tracer().Start(t.Context(), "call")
		call.End()
		if err := tr.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if sent := counts.sent.Load(); sent != want || counts.failed.Load() != 1-want || strings.Contains(log.String(), "takes no traces") != (want == 0) {
			t.Errorf("%d: %d sent, %d failed; the log says %q", status, sent, counts.failed.Load(), log)
		}
	}
}

// TestAFullQueueDropsAndHoldsNobodyUp: the collector answers nothing until the test's end.
func TestAFullQueueDropsAndHoldsNobodyUp(t *testing.T) {
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-hold }))
	defer server.Close()
	defer close(hold)
	c := &counts{}
	tr, err := tracing.Start(t.Context(), tracing.Options{Endpoint: server.URL, Sample: 1, Log: slog.New(slog.DiscardHandler), Count: c})
	if err != nil {
		t.Fatal(err)
	}
	for range 50_000 { // a queue that waits would stand still here
		_, call := tr.Tracer().Start(t.Context(), "call")
		call.End()
	}
	if c.ended.Load() != 50_000 || c.sent.Load() != 0 {
		t.Errorf("%d ended, %d sent", c.ended.Load(), c.sent.Load())
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_ = tr.Stop(gone) // and neither does its end
}

// key is of a value that nobody reads.
type key int

// BenchmarkOff is what two parts of a call cost where nobody asked for traces.
func BenchmarkOff(b *testing.B) {
	ctx := b.Context()
	for i := 0; i < 8; i++ { // as deep as a call's is
		ctx = context.WithValue(ctx, key(i), i)
	}
	for b.Loop() {
		_, p := phase.Begin(ctx, "part")
		p.End(nil)
		phase.Past(ctx, "past", time.Time{}, time.Time{})
	}
}

// BenchmarkOn is what it costs where they are recorded.
func BenchmarkOn(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	tr, err := tracing.Start(b.Context(), tracing.Options{Endpoint: server.URL, Sample: 1, Log: slog.New(slog.DiscardHandler), Count: &counts{}})
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Stop(context.Background()) //nolint:errcheck // a benchmark
	ctx, call := tr.Tracer().Start(b.Context(), "call")
	defer call.End()
	for b.Loop() {
		_, p := phase.Begin(ctx, "part")
		p.End(nil)
	}
}

// A client chooses the ids of its traces: they must not choose for the server what is sampled.
func TestATracesIDDoesNotSayWhetherItIsSampled(t *testing.T) {
	const calls = 2000
	for name, last := range map[string]trace.TraceID{"the least": {15: 1}, "the greatest": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		tr, counts, _, _ := start(t, 0.5)
		for range calls {
			ctx := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: last, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true}))
			_, call := tr.Tracer().Start(ctx, "call")
			call.End()
		}
		if err := tr.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if n := counts.ended.Load(); n < calls*2/5 || n > calls*3/5 { // nine standard deviations
			t.Errorf("%s: %d of %d", name, n, calls)
		}
	}
}
