// Package phase tells of the parts of a call, as spans of the trace that its context carries. Where none is recorded, which is where
// nobody asked for traces, that costs a look into the context.
package phase

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"outpost.run/outpost/sandbox"
)

// Scope names who made the spans.
const Scope = "outpost.run/outpost"

// Phase is one part that has begun. The zero Phase is one that nobody hears of.
type Phase struct{ span trace.Span }

// Begin begins a part of what ctx belongs to, or belonged to: a part may go on when its call has been answered. Parts of it begin with
// the context that it gives.
func Begin(ctx context.Context, name string) (context.Context, Phase) {
	return begin(ctx, name)
}

// Root begins what no call waits for, as a trace of its own. tracer nil: nobody asked for traces.
func Root(ctx context.Context, tracer trace.Tracer, name string) (context.Context, Phase) {
	if tracer == nil {
		return ctx, Phase{}
	}
	ctx, span := tracer.Start(ctx, name, trace.WithNewRoot())
	return ctx, Phase{span}
}

// Past tells of a part that is over.
func Past(ctx context.Context, name string, from, to time.Time) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return // before the options, which cost something
	}
	_, p := begin(ctx, name, trace.WithTimestamp(from))
	p.span.End(trace.WithTimestamp(to))
}

func begin(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, Phase) {
	whole := trace.SpanFromContext(ctx)
	if !whole.SpanContext().IsSampled() {
		return ctx, Phase{}
	}
	ctx, span := whole.TracerProvider().Tracer(Scope).Start(ctx, name, o...)
	return ctx, Phase{span}
}

// Note adds a word of ours to it.
func (p Phase) Note(key, value string) {
	if p.span != nil {
		p.span.SetAttributes(attribute.String("outpost."+key, value))
	}
}

// End ends it, with the error that it came to. What an error says may be the client's own words: its code is enough.
func (p Phase) End(err error) {
	if p.span == nil {
		return
	}
	if err != nil {
		code := string(sandbox.CodeOf(err))
		p.span.SetAttributes(attribute.String("error.type", code))
		p.span.SetStatus(codes.Error, code)
	}
	p.span.End()
}
