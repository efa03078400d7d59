package policy

import (
	"fmt"

	"outpost.run/outpost/sandbox"
)

// MaxPorts is how many ports a sandbox can have.
const MaxPorts = 64

// ports are those to publish; host port 0 is one that the runtime chooses.
func ports(asked []sandbox.PortRequest, faults *sandbox.Faults) []sandbox.Port {
	list := make([]sandbox.Port, 0, len(asked))
	if len(asked) > MaxPorts {
		faults.Add("ports", "has more than %d entries", MaxPorts)
		return list
	}
	seen := map[string]int{}
	for i, r := range asked {
		if r.GuestPort == nil {
			continue // said already
		}
		p := Port(r)
		key := fmt.Sprintf("%d/%s", p.GuestPort, p.Protocol)
		if j, twice := seen[key]; twice {
			faults.Add(fmt.Sprintf("ports[%d].guest_port", i), "repeats ports[%d]", j)
		}
		seen[key] = i
		list = append(list, p)
	}
	return list
}

// Port is one port with its defaults filled in; GuestPort must be there.
func Port(r sandbox.PortRequest) sandbox.Port {
	p := sandbox.Port{GuestPort: *r.GuestPort, Protocol: "tcp"}
	if r.HostPort != nil {
		p.HostPort = *r.HostPort
	}
	if r.Protocol != nil {
		p.Protocol = *r.Protocol
	}
	return p
}
