package server_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/server"
)

// TestSlowClientsAreLetGo: a client that never ends its headers loses its connection by itself.
func TestSlowClientsAreLetGo(t *testing.T) {
	defer server.SetHeaderTime(50 * time.Millisecond)()
	f := start(t, nil)
	web, err := server.New(server.Config{Service: f.svc, Log: slog.New(slog.DiscardHandler), Metrics: metrics.New()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(ctx, l, time.Second) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's
	if _, err := io.WriteString(c, "POST /auth/v1/seed/default/sandbox HTTP/1.1\r\nHost: x\r\nX-A: "); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, c); gone <- err }()
	soon(f, "the server lets go", gone)
	stop()
	if err := soon(f, "the server ends", ended); err != nil {
		t.Error(err)
	}
}
