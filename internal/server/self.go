package server

import "outpost.run/outpost/sandbox"

// status is the answer of healthz and readyz.
type status struct {
	Status string `json:"status"`
}

type versionAnswer struct {
	Version   string   `json:"version"`
	Languages []string `json:"languages"`
}

func (s *Server) healthz(*call) (any, error) { return status{"ok"}, nil }

func (s *Server) readyz(*call) (any, error) {
	if s.svc.Draining() {
		return nil, sandbox.Errorf(sandbox.ShuttingDown, nil, "the server is stopping")
	}
	return status{"ready"}, nil
}

func (s *Server) versionOf(*call) (any, error) {
	return versionAnswer{s.version, s.svc.Languages()}, nil
}
