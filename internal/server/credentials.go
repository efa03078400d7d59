package server

import "outpost.run/outpost/sandbox"

func (s *Server) createToken(c *call) (any, error) {
	var r sandbox.TokenRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	token, err := s.svc.CreateToken(c.ctx, c.caller, r, faults)
	c.trace.names("role", string(token.Role))
	c.trace.names("of_namespace", token.Namespace)
	return token, err
}

func (s *Server) listTokens(params []param) func(*call) (any, error) {
	return func(c *call) (any, error) {
		q, faults := readQuery(c.rawQuery, params)
		page := readPaging(q, &faults)
		if err := faults.Err(sandbox.Invalid); err != nil {
			return nil, err
		}
		return s.svc.Tokens(c.ctx, c.caller, page)
	}
}

func (s *Server) getToken(c *call) (any, error) { return s.svc.Token(c.ctx, c.caller, c.id) }

func (s *Server) deleteToken(c *call) (any, error) {
	return nil, s.svc.DeleteToken(c.ctx, c.caller, c.id)
}

func (s *Server) createKey(c *call) (any, error) {
	var r sandbox.KeyRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	key, err := s.svc.CreateKey(c.ctx, c.caller, r, faults)
	c.trace.names("role", string(key.Role))
	c.trace.names("of_namespace", key.Namespace)
	return key, err
}

func (s *Server) listKeys(params []param) func(*call) (any, error) {
	return func(c *call) (any, error) {
		q, faults := readQuery(c.rawQuery, params)
		page := readPaging(q, &faults)
		if err := faults.Err(sandbox.Invalid); err != nil {
			return nil, err
		}
		return s.svc.Keys(c.ctx, c.caller, page)
	}
}

func (s *Server) getKey(c *call) (any, error) { return s.svc.Key(c.ctx, c.caller, c.id) }

func (s *Server) deleteKey(c *call) (any, error) { return nil, s.svc.DeleteKey(c.ctx, c.caller, c.id) }
