// Package tracing sends the spans of calls to an OpenTelemetry collector, by OTLP over HTTP. It holds no call up: spans wait in a queue
// of fixed size, and what finds it full is dropped and counted.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"outpost.run/outpost/internal/phase"
)

// What waits and how long. A span takes about 1 kB.
const (
	queue      = 4096 // spans
	batch      = 512  // spans of one call to the collector
	batchEvery = time.Second
	exportTime = 10 * time.Second
	complain   = time.Minute // at most so often the log says that the collector does not take spans
)

// Options say where spans go.
type Options struct {
	Endpoint string // http://HOST:PORT; without a path /v1/traces is meant
	Headers  map[string]string
	Sample   float64 // which part of the traces
	Version  string  // of the server
	Host     string
	Log      *slog.Logger
	Count    Count
}

// Count hears how many spans there were.
type Count interface {
	SpansEnded(n int)
	SpansSent(n int)
	SpansFailed(n int)
}

// Tracing is where spans go.
type Tracing struct{ provider *sdk.TracerProvider }

// Start gets ready to send; nothing is sent before there are spans.
func Start(ctx context.Context, o Options) (*Tracing, error) {
	collector, err := newCollector(o.Endpoint, o.Headers)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(ctx, collector)
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Log.Warn("traces", "error", err) }))
	waiting := sdk.NewBatchSpanProcessor(&counted{SpanExporter: exporter, Options: o},
		sdk.WithMaxQueueSize(queue), sdk.WithMaxExportBatchSize(batch), sdk.WithBatchTimeout(batchEvery), sdk.WithExportTimeout(exportTime))
	return &Tracing{sdk.NewTracerProvider(
		sdk.WithSpanProcessor(counting{waiting, o.Count}), sdk.WithSampler(sampler(o.Sample)), sdk.WithRawSpanLimits(sdk.NewSpanLimits()),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "outpost"), attribute.String("service.version", o.Version), attribute.String("host.name", o.Host))),
	)}, nil
}

// sampler takes that part of the traces, those that a client began included: it may say that it wants none, but not that it wants more.
func sampler(part float64) sdk.Sampler {
	some := share(part)
	return sdk.ParentBased(some, sdk.WithRemoteParentSampled(some))
}

// share draws for each trace. The SDK's own reads the trace's id, which is a client's to choose.
type share float64

// ShouldSample implements sdk.Sampler.
func (s share) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	r := sdk.SamplingResult{Decision: sdk.Drop, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState()}
	if rand.Float64() < float64(s) {
		r.Decision = sdk.RecordAndSample
	}
	return r
}

// Description implements sdk.Sampler.
func (s share) Description() string { return fmt.Sprintf("share{%g}", float64(s)) }

// Tracer makes the spans.
func (t *Tracing) Tracer() trace.Tracer { return t.provider.Tracer(phase.Scope) }

// Stop sends what waits, until ctx ends.
func (t *Tracing) Stop(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// counting counts spans that have ended.
type counting struct {
	sdk.SpanProcessor
	count Count
}

// OnEnd implements sdk.SpanProcessor.
func (c counting) OnEnd(s sdk.ReadOnlySpan) {
	c.count.SpansEnded(1)
	c.SpanProcessor.OnEnd(s)
}

// counted counts and complains instead of the SDK, which would say each failure.
type counted struct {
	sdk.SpanExporter
	Options
	mu   sync.Mutex
	said time.Time
}

// ExportSpans implements sdk.SpanExporter.
func (c *counted) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		c.Count.SpansSent(len(spans))
		return nil
	}
	c.Count.SpansFailed(len(spans))
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.said) > complain {
		c.said = now
		c.Log.Warn("the collector takes no traces; they are dropped, and calls go on", "endpoint", c.Endpoint, "error", err)
	}
	return nil
}
