package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/internal/config"
)

// startTracing sends traces to the collector of the configuration until end. A collector that is slow or gone costs a queue of bounded
// size and what does not fit into it, never a call.
func startTracing(ctx context.Context, c config.Tracing, log *slog.Logger) (end func(), err error) {
	if c.Endpoint == "" {
		return func() {}, nil
	}
	out, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.Endpoint+"/v1/traces"))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces could not be sent", "error", err) }))
	p := trace.NewTracerProvider(
		trace.WithBatcher(out),
		trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(c.Sample))),
		trace.WithResource(resource.NewSchemaless(attribute.String("service.name", "outpost"), attribute.String("service.version", version()))),
	)
	otel.SetTracerProvider(p)
	return func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := p.Shutdown(last); err != nil {
			log.Warn("the last traces could not be sent", "error", err)
		}
	}, nil
}

// openAudit opens the audit log, and again at each SIGHUP until ctx ends; nil where there is none.
func openAudit(ctx context.Context, path string, log *slog.Logger) (*audit.Log, error) {
	if path == "" {
		return nil, nil
	}
	l, err := audit.Open(path, log)
	if err != nil {
		return nil, fmt.Errorf("the audit log: %w", err)
	}
	moved := make(chan os.Signal, 1)
	signal.Notify(moved, syscall.SIGHUP)
	go func() {
		defer signal.Stop(moved)
		for {
			select {
			case <-moved:
				if err := l.Reopen(); err != nil {
					log.Error("the audit log could not be opened anew; the old file goes on", "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return l, nil
}
