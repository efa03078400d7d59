package client

import (
	"context"
	"net/http"

	"outpost.run/outpost/sandbox"
)

// The paths of credentials, below no namespace.
var (
	tokensPath = path("auth", "v1", "pat")
	keysPath   = path("auth", "v1", "api_keys")
)

// CreateToken makes a personal access token with the caller's namespace and role; its text is in this answer only.
func (c *Client) CreateToken(ctx context.Context, r sandbox.TokenRequest) (sandbox.Token, error) {
	return call[sandbox.Token](ctx, c, http.MethodPost, tokensPath, r)
}

// Tokens gives the caller's tokens, without their texts.
func (c *Client) Tokens(ctx context.Context) ([]sandbox.Token, error) {
	return every(func(page int) (sandbox.Page[sandbox.Token], error) {
		return call[sandbox.Page[sandbox.Token]](ctx, c, http.MethodGet, tokensPath+ListOptions{Page: page, PerPage: maxPerPage}.query(), nil)
	})
}

// DeleteToken makes a token void.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	_, err := c.Raw(ctx, http.MethodDelete, tokensPath+path(id), nil)
	return err
}

// CreateKey makes an API key; its secret is in this answer only.
func (c *Client) CreateKey(ctx context.Context, r sandbox.KeyRequest) (sandbox.Key, error) {
	return call[sandbox.Key](ctx, c, http.MethodPost, keysPath, r)
}

// Keys gives the keys that the caller may manage, without their secrets.
func (c *Client) Keys(ctx context.Context) ([]sandbox.Key, error) {
	return every(func(page int) (sandbox.Page[sandbox.Key], error) {
		return call[sandbox.Page[sandbox.Key]](ctx, c, http.MethodGet, keysPath+ListOptions{Page: page, PerPage: maxPerPage}.query(), nil)
	})
}

// DeleteKey makes a key void.
func (c *Client) DeleteKey(ctx context.Context, id string) error {
	_, err := c.Raw(ctx, http.MethodDelete, keysPath+path(id), nil)
	return err
}
