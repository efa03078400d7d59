package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"outpost.run/outpost/sandbox"
)

// Stop ends a stateful sandbox's machine and keeps its files.
func (c *Client) Stop(ctx context.Context, id string) (sandbox.Sandbox, error) {
	return call[sandbox.Sandbox](ctx, c, http.MethodPost, c.inNamespace(id, "stop"), nil)
}

// Start makes a machine on the files of a stateful sandbox that was stopped or lost.
func (c *Client) Start(ctx context.Context, id string) (sandbox.Sandbox, error) {
	return call[sandbox.Sandbox](ctx, c, http.MethodPost, c.inNamespace(id, "start"), nil)
}

// Patch changes a sandbox's name, labels or times.
func (c *Client) Patch(ctx context.Context, id string, r sandbox.PatchRequest) (sandbox.Sandbox, error) {
	return call[sandbox.Sandbox](ctx, c, http.MethodPatch, c.inNamespace(id), r)
}

// Languages are those of the server.
func (c *Client) Languages(ctx context.Context) ([]sandbox.LanguageInfo, error) {
	l, err := call[sandbox.List[sandbox.LanguageInfo]](ctx, c, http.MethodGet, c.ofNamespace("languages"), nil)
	return l.Data, err
}

// Images are those that are ready on the server.
func (c *Client) Images(ctx context.Context) ([]sandbox.ImageInfo, error) {
	l, err := call[sandbox.List[sandbox.ImageInfo]](ctx, c, http.MethodGet, c.ofNamespace("images"), nil)
	return l.Data, err
}

// Usage is the namespace's quota and what it has of it.
func (c *Client) Usage(ctx context.Context) (sandbox.NamespaceUsage, error) {
	return call[sandbox.NamespaceUsage](ctx, c, http.MethodGet, c.ofNamespace("usage"), nil)
}

// Whoami is the credential of this client.
func (c *Client) Whoami(ctx context.Context) (sandbox.Whoami, error) {
	return call[sandbox.Whoami](ctx, c, http.MethodGet, path("auth", "v1", "whoami"), nil)
}

// ErrStop ends Events without an error.
var ErrStop = errors.New("no more events are wanted")

// Events gives tell the events of a sandbox, or with id "" of the whole namespace, as they come: those after *since
// first, only new ones where it is nil. It returns when ctx ends, the server stops, or tell returns an error: that one,
// but for ErrStop.
func (c *Client) Events(ctx context.Context, id string, since *uint64, tell func(sandbox.Event) error) error {
	at := c.ofNamespace("events")
	if id != "" {
		at = c.inNamespace(id, "events")
	}
	if since != nil {
		at += "?since=" + strconv.FormatUint(*since, 10)
	}
	res, err := c.send(ctx, http.MethodGet, at, nil, http.Header{"Accept": {"text/event-stream"}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var told error
	_ = events(res.Body, func(_ string, data []byte) error { // it has no end but that of its connection
		var e sandbox.Event
		if told = json.Unmarshal(data, &e); told != nil {
			told = fmt.Errorf("an event is not the contract's JSON: %w", told)
		} else {
			told = tell(e)
		}
		return told
	})
	switch {
	case errors.Is(told, ErrStop):
		return nil
	case told != nil:
		return told
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.severed(io.EOF)
}

func (c *Client) ofNamespace(what string) string {
	return path("auth", "v1", "seed", c.namespace, what)
}

// Version is the server's.
func (c *Client) Version(ctx context.Context) (string, error) {
	v, err := call[struct {
		Version string `json:"version"`
	}](ctx, c, http.MethodGet, path("version"), nil)
	return v.Version, err
}

// Ready is nil while the server takes calls.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.Raw(ctx, http.MethodGet, path("readyz"), nil)
	return err
}
