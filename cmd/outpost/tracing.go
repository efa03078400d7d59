package main

import (
	"context"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/trace"

	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/tracing"
)

// openTracing gives what makes the spans of calls, nil where nobody asked for any; stop sends those that wait.
func openTracing(ctx context.Context, c config.Tracing, m *metrics.Metrics, log *slog.Logger) (tracer trace.Tracer, stop func(), err error) {
	if c.Endpoint == "" {
		return nil, func() {}, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, nil, err
	}
	t, err := tracing.Start(ctx, tracing.Options{
		Endpoint: c.Endpoint, Headers: c.Headers, Sample: c.Sample, Version: version(), Host: name, Log: log, Count: m.Spans(),
	})
	if err != nil {
		return nil, nil, err
	}
	return t.Tracer(), func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if err := t.Stop(last); err != nil {
			log.Warn("the last traces were not sent", "error", err)
		}
	}, nil
}
