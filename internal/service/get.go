package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Get answers one sandbox, the values of its env redacted. Errors: NotFound.
func (s *Service) Get(namespace, id string) (sandbox.Sandbox, error) {
	_, r, err := s.find(namespace, id)
	return redacted(r), err
}

// List answers one page of a namespace's sandboxes, the values of env redacted.
func (s *Service) List(ctx context.Context, q SandboxQuery) (sandbox.Page[sandbox.Sandbox], error) {
	rows, total, err := s.store.ListSandboxes(ctx, q)
	for i := range rows {
		rows[i] = redacted(rows[i])
	}
	return sandbox.NewPage(rows, q.Page, q.PerPage, total), err
}

func redacted(r sandbox.Sandbox) sandbox.Sandbox {
	env := make([][2]string, len(r.Env))
	for i, pair := range r.Env {
		env[i] = [2]string{pair[0], "redacted"}
	}
	r.Env = env
	return r
}
