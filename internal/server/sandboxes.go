package server

import (
	"strings"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

func (s *Server) createSandbox(c *call) (any, error) {
	var r sandbox.CreateRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	return s.svc.Create(c.lasting(), c.caller, c.namespace, r, faults)
}

func (s *Server) listSandboxes(params []param) func(*call) (any, error) {
	return func(c *call) (any, error) {
		q, faults := readQuery(c.rawQuery, params)
		query := service.SandboxQuery{
			Namespace: c.namespace, Status: q.Get("status"), Language: q.Get("language"), Mode: q.Get("mode"),
			Paging: readPaging(q, &faults),
		}
		if q.Has("label") {
			name, value, pair := strings.Cut(q.Get("label"), ":")
			if !pair || name == "" {
				faults.Add("label", "must be name:value")
			}
			query.LabelKey, query.LabelValue = name, value
		}
		if err := faults.Err(sandbox.Invalid); err != nil {
			return nil, err
		}
		return s.svc.List(c.ctx, query)
	}
}

func (s *Server) getSandbox(c *call) (any, error) { return s.svc.Get(c.namespace, c.id) }

func (s *Server) deleteSandbox(c *call) (any, error) {
	return nil, s.svc.Delete(c.ctx, c.namespace, c.id)
}

func (s *Server) patchSandbox(c *call) (any, error) {
	var r sandbox.PatchRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	return s.svc.Patch(c.ctx, c.namespace, c.id, r, faults)
}

func (s *Server) stopSandbox(c *call) (any, error) { return s.svc.Stop(c.ctx, c.namespace, c.id) }

func (s *Server) startSandbox(c *call) (any, error) {
	return s.svc.StartAgain(c.ctx, c.namespace, c.id)
}
