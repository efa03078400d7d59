package server

import (
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

func (s *Server) languages(*call) (any, error) {
	return sandbox.List[sandbox.LanguageInfo]{Data: s.svc.LanguageInfos()}, nil
}

func (s *Server) images(c *call) (any, error) {
	all, err := s.svc.Images(c.ctx, c.caller, c.namespace)
	return sandbox.List[sandbox.ImageInfo]{Data: all}, err
}

func (s *Server) usage(c *call) (any, error) { return s.svc.Usage(c.namespace), nil }

func (s *Server) whoami(c *call) (any, error) { return service.Whoami(c.caller), nil }
