package policy

import "outpost.run/outpost/sandbox"

// later notes the fields of create that are known and valid, but not served yet: nothing is taken and left undone.
func later(r sandbox.CreateRequest) (unserved sandbox.Faults) {
	const yet = "is not supported by this server yet; leave it out"
	for field, given := range map[string]bool{
		"image": r.Image != nil,
		"ports": len(r.Ports) > 0,
	} {
		if given {
			unserved.Add(field, yet)
		}
	}
	if n := r.Network; n != nil && (n.Egress != nil && *n.Egress != "none" || len(n.Allow) > 0) {
		unserved.Add("network", "only egress none, without allow, is supported by this server yet")
	}
	return sorted(unserved)
}

func laterOfExec(r sandbox.ExecRequest) (unserved sandbox.Faults) {
	const yet = "is not supported by this server yet; leave it out"
	if r.Background != nil && *r.Background {
		unserved.Add("background", yet)
	}
	return unserved
}
