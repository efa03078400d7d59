package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector is an otlptrace.Client over plain HTTP. The SDK's own has gRPC with it, 2 MB of program for one POST.
// Source: OTLP Specification 1.7, OTLP/HTTP.
type collector struct {
	address string
	headers map[string]string
	client  *http.Client
}

func newCollector(endpoint string, headers map[string]string) (*collector, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("the collector's address: %w", err)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return &collector{u.String(), headers, &http.Client{
		Transport:     http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // headers may be credentials
	}}, nil
}

// Start implements otlptrace.Client.
func (c *collector) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *collector) Stop(context.Context) error {
	c.client.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client: it tries until ctx ends where the collector may take them later.
func (c *collector) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans}) // the same on the wire as an ExportTraceServiceRequest
	if err != nil {
		return err
	}
	for pause := time.Second; ; pause *= 2 {
		again, err := c.post(ctx, body)
		if err == nil || !again {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// post sends one batch; again says that the same may do better later.
func (c *collector) post(ctx context.Context, body []byte) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	for name, value := range c.headers {
		r.Header.Set(name, value)
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("User-Agent", "outpost")
	a, err := c.client.Do(r)
	if err != nil {
		return ctx.Err() == nil, errors.Unwrap(err) // the address is the operator's to see, not the log's
	}
	defer a.Body.Close() //nolint:errcheck // nothing comes of it
	_, _ = io.CopyN(io.Discard, a.Body, 64<<10)
	if a.StatusCode/100 == 2 {
		return false, nil
	}
	switch a.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return again, fmt.Errorf("it answers %s", a.Status)
}
