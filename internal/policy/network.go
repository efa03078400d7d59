package policy

import (
	"fmt"

	"outpost.run/outpost/sandbox"
)

const (
	egressNone   = "none"
	egressPublic = "public"
	egressAllow  = "allow"

	maxAllowed = 256 // entries of network.allow
)

// network fills in what the preset says where the request says nothing, and notes in below what goes under the operator's
// floor. Entries of allow are kept as they were written.
func (p Policy) network(r *sandbox.NetworkRequest, preset sandbox.Preset, faults, below *sandbox.Faults) sandbox.Network {
	n := sandbox.Network{Egress: egressPublic, Allow: []string{}}
	if preset == sandbox.Maximum {
		n.Egress = egressNone
	}
	if r == nil {
		return n
	}
	if r.Egress != nil {
		n.Egress = *r.Egress
		if n.Egress != egressNone && p.Floor == sandbox.Maximum {
			below.Add("network.egress", "%s goes below the operator's floor, which is preset %s with egress none", n.Egress, p.Floor)
		}
	}
	switch {
	case n.Egress != egressAllow && len(r.Allow) > 0:
		faults.Add("network.allow", "goes with egress allow alone")
	case n.Egress == egressAllow && len(r.Allow) == 0:
		faults.Add("network.allow", "must list what may be reached; egress none reaches nothing")
	case len(r.Allow) > maxAllowed:
		faults.Add("network.allow", "has more than %d entries", maxAllowed)
		return n
	}
	for i, entry := range r.Allow {
		if _, err := sandbox.ParseDestination(entry); err != nil {
			faults.Add(fmt.Sprintf("network.allow[%d]", i), err.Error())
		}
	}
	n.Allow = append(n.Allow, r.Allow...)
	return n
}
