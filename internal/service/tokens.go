package service

import (
	"context"
	"time"

	"outpost.run/outpost/sandbox"
)

// CreateToken makes a personal access token with its maker's namespace and role; the token is in this answer only. One
// that is made with an expiring token ends with that one at the latest.
//
// Errors: Invalid.
func (s *Service) CreateToken(ctx context.Context, by Caller, r sandbox.TokenRequest, faults sandbox.Faults) (sandbox.Token, error) {
	checkCredentialName(r.Name, &faults)
	if r.ExpiresInDays != nil && *r.ExpiresInDays <= 0 {
		faults.Add("expires_in_days", "must be more than 0")
	}
	now := sandbox.Now()
	var expires sandbox.Time
	if r.ExpiresInDays != nil {
		expires = sandbox.At(now.Add(time.Duration(*r.ExpiresInDays * float64(24*time.Hour))))
		if by.ExpiresAt != nil && expires.After(by.ExpiresAt.Time) {
			faults.Add("expires_in_days", "goes beyond the end of the token that makes it, %s", by.ExpiresAt)
		}
	}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return sandbox.Token{}, err
	}
	secret, hash := newSecret()
	c := Credential{
		ID: sandbox.NewID(sandbox.TokenPrefix), Kind: TokenKind, Name: *r.Name, Namespace: by.Namespace, Role: by.Role,
		RateLimit: by.RateLimit, Hash: hash, Maker: by.ID, CreatedAt: now, ExpiresAt: &expires,
	}
	if err := s.store.PutCredential(ctx, c); err != nil {
		return sandbox.Token{}, err
	}
	token := tokenOf(c)
	token.Token = secret
	return token, nil
}

// Token answers one of the caller's tokens. Errors: NotFound.
func (s *Service) Token(ctx context.Context, by Caller, id string) (sandbox.Token, error) {
	c, err := s.credential(ctx, id, TokenKind, "token", own(by))
	if err != nil {
		return sandbox.Token{}, err
	}
	return tokenOf(c), nil
}

// Tokens answers a page of the caller's tokens: those it made, an admin's all of the namespace, an operator's all.
func (s *Service) Tokens(ctx context.Context, by Caller, page Paging) (sandbox.Page[sandbox.Token], error) {
	q := CredentialQuery{Kind: TokenKind, Paging: page}
	switch {
	case by.Role == sandbox.Operator:
	case by.Role == sandbox.Admin:
		q.Namespace = by.Namespace
	default:
		q.Maker = by.ID
	}
	rows, total, err := s.store.ListCredentials(ctx, q)
	tokens := make([]sandbox.Token, len(rows))
	for i, c := range rows {
		tokens[i] = tokenOf(c)
	}
	return sandbox.NewPage(tokens, page.Page, page.PerPage, total), err
}

// DeleteToken removes one of the caller's tokens, and those made with it. Errors: NotFound.
func (s *Service) DeleteToken(ctx context.Context, by Caller, id string) error {
	return s.deleteCredential(ctx, id, TokenKind, "token", own(by))
}

// own are the tokens that the caller made or is, and for an admin those of its namespace that are not above its role.
func own(by Caller) func(Credential) bool {
	return func(c Credential) bool {
		return c.Maker == by.ID || c.ID == by.ID || by.May(sandbox.Admin, c.Namespace) && by.Role.Includes(c.Role)
	}
}

func tokenOf(c Credential) sandbox.Token {
	return sandbox.Token{ID: c.ID, Name: c.Name, Namespace: c.Namespace, Role: c.Role, CreatedAt: c.CreatedAt, ExpiresAt: *c.ExpiresAt}
}
