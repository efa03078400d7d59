package server

import (
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	otel "go.opentelemetry.io/otel/trace"
)

// span begins the call's span, under the client's traceparent where it sent one. Source: W3C Trace Context.
func (s *Server) span(r *http.Request) (*http.Request, otel.Span) {
	if s.tracer == nil {
		return r, nil
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := s.tracer.Start(ctx, "call", otel.WithSpanKind(otel.SpanKindServer))
	return r.WithContext(ctx), span
}

// endSpan says of a call what its line in the log says, in the words of OpenTelemetry's semantic conventions where they have some.
func endSpan(span otel.Span, r *http.Request, t *trace) {
	if span == nil {
		return
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	name, method := r.Method, r.Method
	if t.route == "" { // a method may be any word of the client's
		name, method = "no route", "_OTHER"
	} else {
		name += " " + t.route
	}
	span.SetName(name)
	all := []attribute.KeyValue{
		attribute.String("http.request.method", method), attribute.Int("http.response.status_code", t.status), attribute.String("outpost.request_id", t.requestID),
	}
	add := func(key, value string) {
		if value != "" {
			all = append(all, attribute.String(key, value))
		}
	}
	add("http.route", t.route)
	add("outpost.namespace", t.namespace)
	add("outpost.credential", t.caller.ID)
	for _, o := range t.objects {
		if strings.HasSuffix(o[0], "_id") {
			add("outpost."+o[0], o[1])
		}
	}
	code := string(t.code())
	add("error.type", code)
	span.SetAttributes(all...)
	if t.status >= http.StatusInternalServerError || t.cut {
		span.SetStatus(otelcodes.Error, code)
	}
}
