package policy

import "outpost.run/outpost/sandbox"

// laterOfExec notes the fields of exec that are known and valid, but not served yet: nothing is taken and left undone.
func laterOfExec(r sandbox.ExecRequest) (unserved sandbox.Faults) {
	const yet = "is not supported by this server yet; leave it out"
	if r.Background != nil && *r.Background {
		unserved.Add("background", yet)
	}
	return unserved
}
