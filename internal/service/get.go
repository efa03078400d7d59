package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Get answers one sandbox, the values of its env redacted. Errors: NotFound.
func (s *Service) Get(namespace, id string) (sandbox.Sandbox, error) {
	l, r, err := s.find(namespace, id)
	return s.shown(l, r), err
}

// List answers one page of a namespace's sandboxes, the values of env redacted.
func (s *Service) List(ctx context.Context, q SandboxQuery) (sandbox.Page[sandbox.Sandbox], error) {
	rows, total, err := s.store.ListSandboxes(ctx, q)
	for i := range rows {
		s.mu.Lock()
		l := s.live[rows[i].ID]
		if l != nil && l.state.Status == rows[i].Status {
			rows[i].Health = l.state.Health
		}
		s.mu.Unlock()
		rows[i] = s.shown(l, rows[i])
	}
	return sandbox.NewPage(rows, q.Page, q.PerPage, total), err
}

// shown is a record as it is answered, but for create.
func (s *Service) shown(l *live, r sandbox.Sandbox) sandbox.Sandbox { return redacted(timed(r, l)) }

func redacted(r sandbox.Sandbox) sandbox.Sandbox {
	env := make([][2]string, len(r.Env))
	for i, pair := range r.Env {
		env[i] = [2]string{pair[0], "redacted"}
	}
	r.Env = env
	return r
}
