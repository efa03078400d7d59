// Package tracing marks what a call spends its time on, for OpenTelemetry. Without a collector (cmd/outpost sets it up) nothing is
// recorded, and a mark costs some ten nanoseconds.
package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"outpost.run/outpost/sandbox"
)

// Name is of the instrumentation.
const Name = "outpost.run/outpost"

// Span is a stretch of time; its zero value is none, which can be ended too.
type Span struct{ s trace.Span }

// Begin marks the begin of a part of what ctx is about; where that is not traced, nothing.
func Begin(ctx context.Context, name string) (context.Context, Span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, Span{}
	}
	ctx, s := otel.Tracer(Name).Start(ctx, name)
	return ctx, Span{s}
}

// Request marks the begin of a call, which goes on with the trace that its client names (W3C Trace Context).
func Request(r *http.Request) (context.Context, Span) {
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, s := otel.Tracer(Name).Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
	return ctx, Span{s}
}

// Root marks the begin of something that no call waits for.
func Root(ctx context.Context, name string) (context.Context, Span) {
	ctx, s := otel.Tracer(Name).Start(ctx, name, trace.WithNewRoot())
	return ctx, Span{s}
}

// Recording says whether anybody will see the span.
func (s Span) Recording() bool { return s.s != nil && s.s.IsRecording() }

// Rename gives it the name that is known only now.
func (s Span) Rename(name string) {
	if s.Recording() {
		s.s.SetName(name)
	}
}

// Say notes a value.
func (s Span) Say(name, value string) {
	if value != "" && s.Recording() {
		s.s.SetAttributes(attribute.String(name, value))
	}
}

// SayNumber notes a number.
func (s Span) SayNumber(name string, value int) {
	if s.Recording() {
		s.s.SetAttributes(attribute.Int(name, value))
	}
}

// End marks the end; err is why it came to nothing.
func (s Span) End(err error) {
	if s.s == nil {
		return
	}
	if err != nil && s.s.IsRecording() {
		s.s.SetStatus(codes.Error, string(sandbox.CodeOf(err)))
	}
	s.s.End()
}
