package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"outpost.run/outpost/sandbox"
)

// Create makes a sandbox.
func (c *Client) Create(ctx context.Context, r sandbox.CreateRequest) (sandbox.Sandbox, error) {
	return call[sandbox.Sandbox](ctx, c, http.MethodPost, c.inNamespace(), r)
}

// Get gives one sandbox.
func (c *Client) Get(ctx context.Context, id string) (sandbox.Sandbox, error) {
	return call[sandbox.Sandbox](ctx, c, http.MethodGet, c.inNamespace(id), nil)
}

// Delete removes a sandbox; a program that runs in it is killed. NotFound where there is none.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.Raw(ctx, http.MethodDelete, c.inNamespace(id), nil)
	return err
}

// Exec runs one program in a sandbox and gives how it ended: a program's failure is a result, not an error. When ctx
// ends, the program is killed (by on_disconnect).
func (c *Client) Exec(ctx context.Context, id string, r sandbox.ExecRequest) (sandbox.ExecResult, error) {
	return call[sandbox.ExecResult](ctx, c, http.MethodPost, c.inNamespace(id, "exec"), r)
}

// Execute runs one program in a fresh machine that is thrown away, or with SandboxID in that sandbox.
func (c *Client) Execute(ctx context.Context, r sandbox.ExecuteRequest) (sandbox.ExecResult, error) {
	return call[sandbox.ExecResult](ctx, c, http.MethodPost, c.inNamespace("execute"), r)
}

// OpenPort publishes a port of a stateful sandbox and gives it with its host port.
func (c *Client) OpenPort(ctx context.Context, id string, r sandbox.PortRequest) (sandbox.Port, error) {
	return call[sandbox.Port](ctx, c, http.MethodPost, c.inNamespace(id, "ports"), r)
}

// ClosePort closes a published port of a stateful sandbox.
func (c *Client) ClosePort(ctx context.Context, id string, guestPort int, protocol string) error {
	_, err := c.Raw(ctx, http.MethodDelete, c.inNamespace(id, "ports", strconv.Itoa(guestPort))+"?protocol="+url.QueryEscape(protocol), nil)
	return err
}

// ListOptions choose and order the rows of a list; zero values are the server's defaults.
type ListOptions struct {
	Page, PerPage int
	Sort, Order   string
	Status        sandbox.Status
	Language      string
	Mode          sandbox.Mode
	Labels        []string // k:v
}

func (o ListOptions) query() string {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" && value != "0" {
			q.Set(name, value)
		}
	}
	set("page", strconv.Itoa(o.Page))
	set("per_page", strconv.Itoa(o.PerPage))
	set("sort", o.Sort)
	set("order", o.Order)
	set("status", string(o.Status))
	set("language", o.Language)
	set("mode", string(o.Mode))
	for _, l := range o.Labels {
		q.Add("label", l)
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// List gives one page of the namespace's sandboxes.
func (c *Client) List(ctx context.Context, o ListOptions) (sandbox.Page[sandbox.Sandbox], error) {
	return call[sandbox.Page[sandbox.Sandbox]](ctx, c, http.MethodGet, c.inNamespace()+o.query(), nil)
}

// All gives every sandbox that the options choose, page by page. One that is made or deleted meanwhile may be missed or
// come twice.
func (c *Client) All(ctx context.Context, o ListOptions) ([]sandbox.Sandbox, error) {
	return every(func(page int) (sandbox.Page[sandbox.Sandbox], error) {
		o.Page, o.PerPage = page, maxPerPage
		return c.List(ctx, o)
	})
}

const maxPerPage = 100

func every[T any](get func(page int) (sandbox.Page[T], error)) ([]T, error) {
	var all []T
	for n := 1; ; n++ {
		page, err := get(n)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		if n >= page.Pagination.TotalPages {
			return all, nil
		}
	}
}
