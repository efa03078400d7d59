package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// CreateKey makes an API key; its secret is in this answer only. An admin makes keys of its own namespace, up to its
// own role; an operator makes any.
//
// Errors: Invalid, Forbidden.
func (s *Service) CreateKey(ctx context.Context, by Caller, r sandbox.KeyRequest, faults sandbox.Faults) (sandbox.Key, error) {
	checkCredentialName(r.Name, &faults)
	switch {
	case r.Namespace != nil && !ValidNamespace(*r.Namespace):
		faults.Add("namespace", "must match %s", namespaceForm)
	case r.Namespace == nil && (r.Role == nil || *r.Role != string(sandbox.Operator)):
		faults.Add("namespace", "is required but for role operator")
	}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return sandbox.Key{}, err
	}
	namespace, role := defaultNamespace, sandbox.Role(*r.Role)
	if r.Namespace != nil {
		namespace = *r.Namespace
	}
	if !by.May(sandbox.Admin, namespace) || !by.Role.Includes(role) {
		return sandbox.Key{}, Forbidden("this credential can't make keys of that namespace and role")
	}
	secret, hash := newSecret()
	c := Credential{
		ID: sandbox.NewID(sandbox.KeyPrefix), Kind: KeyKind, Name: *r.Name, Namespace: namespace, Role: role,
		RateLimit: r.RateLimit, Hash: hash, Maker: by.ID, CreatedAt: sandbox.Now(),
	}
	if err := s.store.PutCredential(ctx, c); err != nil {
		return sandbox.Key{}, err
	}
	key := keyOf(c)
	key.Secret = secret
	return key, nil
}

// Key answers one key that the caller manages. Errors: NotFound.
func (s *Service) Key(ctx context.Context, by Caller, id string) (sandbox.Key, error) {
	c, err := s.credential(ctx, id, KeyKind, "API key", managed(by))
	return keyOf(c), err
}

// Keys answers a page of the keys that the caller manages.
func (s *Service) Keys(ctx context.Context, by Caller, page Paging) (sandbox.Page[sandbox.Key], error) {
	q := CredentialQuery{Kind: KeyKind, Namespace: by.Namespace, Paging: page}
	if by.Role == sandbox.Operator {
		q.Namespace = ""
	}
	rows, total, err := s.store.ListCredentials(ctx, q)
	keys := make([]sandbox.Key, len(rows))
	for i, c := range rows {
		keys[i] = keyOf(c)
	}
	return sandbox.NewPage(keys, page.Page, page.PerPage, total), err
}

// DeleteKey removes a key that the caller manages, and the tokens that were made with it. Errors: NotFound.
func (s *Service) DeleteKey(ctx context.Context, by Caller, id string) error {
	return s.deleteCredential(ctx, id, KeyKind, "API key", managed(by))
}

// managed are the keys of the caller's namespace that are not above its role.
func managed(by Caller) func(Credential) bool {
	return func(c Credential) bool { return by.May(sandbox.Admin, c.Namespace) && by.Role.Includes(c.Role) }
}

func keyOf(c Credential) sandbox.Key {
	return sandbox.Key{ID: c.ID, Name: c.Name, Namespace: c.Namespace, Role: c.Role, RateLimit: c.RateLimit, CreatedAt: c.CreatedAt}
}
