package runtimetest

import (
	"slices"

	"outpost.run/outpost/sandbox"
)

// ports are cases on published ports. That they lead somewhere is the runtime's own to show.
var ports = []testCase{
	{"a sandbox's ports are assigned at its creation, and the same in the next runtime", func(s *suite) {
		spec := s.spec(sandbox.Stateful)
		spec.Ports = []sandbox.Port{{GuestPort: 80, Protocol: "tcp"}, {GuestPort: 80, Protocol: "udp"}}
		state, err := s.r.Create(s.t.Context(), spec)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(state.Ports) != 2 || state.Ports[0].HostPort == 0 || state.Ports[1].HostPort == 0 || state.Ports[0].Protocol != "tcp" || state.Ports[1].Protocol != "udp" {
			s.t.Fatalf("assigned: %+v", state.Ports)
		}
		if err := s.r.Close(s.t.Context(), false); err != nil {
			s.t.Fatal(err)
		}
		s.r = s.Reopen(s.t)
		spec.Ports = state.Ports
		if again := s.sync(spec); !slices.Equal(again[0].Ports, state.Ports) {
			s.t.Errorf("after a restart: %+v, before %+v", again[0].Ports, state.Ports)
		}
		other := s.spec(sandbox.Ephemeral)
		other.Ports = []sandbox.Port{{GuestPort: 1, HostPort: state.Ports[0].HostPort, Protocol: "tcp"}}
		_, err = s.r.Create(s.t.Context(), other)
		s.refused("Create with another's host port", err, sandbox.PortInUse)
		if err := s.r.Delete(s.t.Context(), spec.ID); err != nil {
			s.t.Error(err)
		}
		other.ID = sandbox.NewID(sandbox.SandboxPrefix)
		s.create(other) // whose port is free now
	}},
	{"ports are opened and closed later", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		p, err := s.r.OpenPort(s.t.Context(), id, sandbox.Port{GuestPort: 80, Protocol: "tcp"})
		if err != nil || p.HostPort == 0 || p.GuestPort != 80 {
			s.t.Fatalf("OpenPort: %+v, %v", p, err)
		}
		if state, err := s.r.Inspect(s.t.Context(), id); err != nil || !slices.Equal(state.Ports, []sandbox.Port{p}) {
			s.t.Errorf("Inspect: %+v, %v", state.Ports, err)
		}
		_, err = s.r.OpenPort(s.t.Context(), id, sandbox.Port{GuestPort: 80, Protocol: "tcp"})
		s.refused("OpenPort a second time", err, sandbox.Conflict)
		_, err = s.r.OpenPort(s.t.Context(), id, sandbox.Port{GuestPort: 81, HostPort: p.HostPort, Protocol: "tcp"})
		s.refused("OpenPort of a host port that is taken", err, sandbox.PortInUse)
		_, err = s.r.OpenPort(s.t.Context(), id, sandbox.Port{GuestPort: 81, HostPort: 1, Protocol: "tcp"})
		s.refused("OpenPort of a host port out of range", err, sandbox.PortNotAllowed)
		s.refused("ClosePort of the other protocol", s.r.ClosePort(s.t.Context(), id, 80, "udp"), sandbox.NotFound)
		if err := s.r.ClosePort(s.t.Context(), id, 80, "tcp"); err != nil {
			s.t.Error(err)
		}
		s.refused("ClosePort a second time", s.r.ClosePort(s.t.Context(), id, 80, "tcp"), sandbox.NotFound)
		_, err = s.r.OpenPort(s.t.Context(), "sb_000000000000", sandbox.Port{GuestPort: 80, Protocol: "tcp"})
		s.refused("OpenPort of no sandbox", err, sandbox.NotFound)
		brief := s.create(s.spec(sandbox.Ephemeral))
		_, err = s.r.OpenPort(s.t.Context(), brief, sandbox.Port{GuestPort: 80, Protocol: "tcp"})
		s.refused("OpenPort of an ephemeral sandbox", err, sandbox.NotStateful)
		s.refused("ClosePort of an ephemeral sandbox", s.r.ClosePort(s.t.Context(), brief, 80, "tcp"), sandbox.NotStateful)
	}},
}
