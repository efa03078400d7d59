package policy

import "outpost.run/outpost/sandbox"

// Patch judges a change. Error: Invalid.
func (p Policy) Patch(r sandbox.PatchRequest, faults sandbox.Faults) error {
	checkNameAndLabels(r.Name, r.Labels, &faults)
	return sorted(faults).Err(sandbox.Invalid)
}
