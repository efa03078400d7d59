package policy

import (
	"slices"
	"strings"

	"outpost.run/outpost/sandbox"
)

// operatorForms are the words before images that only operators may name: they are made on this host, of what lies there
// or is fetched by it.
var operatorForms = []string{"deb", "oci", "oci-archive", "docker-archive", "dir"}

const maxImageBytes = 4096

func checkImage(ref *string, faults *sandbox.Faults) {
	switch {
	case ref == nil:
	case *ref == "", strings.ContainsFunc(*ref, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		faults.Add("image", "must be an image reference, for example repository/name:tag")
	case len(*ref) > maxImageBytes:
		faults.Add("image", "is longer than %d bytes", maxImageBytes)
	}
}

// MayName notes an image that the caller may not name. The images of this server's languages are everyone's.
func (p Policy) MayName(ref *string, operator bool, faults *sandbox.Faults) {
	if ref == nil || operator {
		return
	}
	form, _, ok := strings.Cut(*ref, ":")
	if !ok || !slices.Contains(operatorForms, form) {
		return
	}
	for _, own := range p.Images {
		if own == *ref {
			return
		}
	}
	faults.Add("image", "by %s: is for credentials of role operator; name an image of a registry", form)
}
