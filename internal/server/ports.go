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
	port, err := s.svc.OpenPort(c.ctx, c.namespace, c.id, r, faults)
	if err == nil {
		c.trace.names("guest_port", strconv.Itoa(port.GuestPort))
	}
	return port, err
}

func (s *Server) closePort(c *call) (any, error) {
	q, faults := readQuery(c.rawQuery, portParams)
	port, err := strconv.ParseUint(c.guestPort, 10, 16)
	if err != nil || port == 0 {
		faults.Add("guest_port", "must be a number from 1 to 65535")
	}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	return nil, s.svc.ClosePort(c.ctx, c.namespace, c.id, int(port), cmp.Or(q.Get("protocol"), "tcp"))
}
