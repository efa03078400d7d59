package server

import (
	"cmp"
	"strconv"

	"outpost.run/outpost/sandbox"
)

var portParams = []param{{name: "protocol", doc: "tcp unless given", enum: []string{"tcp", "udp"}}}

func (s *Server) openPort(c *call) (any, error) {
	var r sandbox.PortRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	return s.svc.OpenPort(c.ctx, c.namespace, c.id, r, faults)
}

func (s *Server) closePort(c *call) (any, error) {
	q, faults := readQuery(c.rawQuery, portParams)
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(c.guestPort)
	if err != nil {
		port = 0 // which nobody has
	}
	return nil, s.svc.ClosePort(c.ctx, c.namespace, c.id, port, cmp.Or(q.Get("protocol"), "tcp"))
}
