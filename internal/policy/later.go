package policy

import "outpost.run/outpost/sandbox"

// later notes the fields of create that are known and valid, but not served yet: nothing is taken and left undone.
func later(r sandbox.CreateRequest) (unserved sandbox.Faults) {
	const yet = "is not supported by this server yet; leave it out"
	for field, given := range map[string]bool{
		"image": r.Image != nil,
	} {
		if given {
			unserved.Add(field, yet)
		}
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
