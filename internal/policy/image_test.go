package policy_test

import (
	"testing"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

func TestWhoMayNameWhichImage(t *testing.T) {
	p := policy.Default()
	p.Images["python"] = "oci:/srv/python"
	for ref, all := range map[string]bool{
		"team/app:1": true, "registry.example:5000/deb:1": true, "deb": true, "oci@sha256:0": true, "oci:/srv/python": true, "deb:trixie": true,
		"deb:trixie?include=jq": false, "deb:1": false, "oci:/srv/other": false, "oci-archive:/a": false, "docker-archive:/a": false, "dir:/": false,
	} {
		for _, operator := range []bool{true, false} {
			var faults sandbox.Faults
			p.MayName(&ref, operator, &faults)
			if got := len(faults) == 0; got != (all || operator) {
				t.Errorf("%s, operator %v: %v", ref, operator, faults)
			}
		}
	}
}

func TestWhatIsLeftToTheImage(t *testing.T) {
	highest := policy.Default()
	highest.Floor = sandbox.Maximum
	for _, tc := range []struct {
		name   string
		policy policy.Policy
		req    create
		want   policy.Unsaid
	}{
		{"all", policy.Default(), python(nil), policy.Unsaid{User: true, Preset: true, WorkingDir: true}},
		{"nothing", policy.Default(), python(func(r *create) {
			r.WorkingDir, r.Security = new("/w"), &sandbox.SecurityRequest{User: new("7"), Preset: new("standard")}
		}), policy.Unsaid{}},
		{"a preset wins over the image's user", policy.Default(), python(func(r *create) { r.Security = &sandbox.SecurityRequest{Preset: new("standard")} }), policy.Unsaid{User: true, WorkingDir: true}},
		{"the floor wins, too", highest, python(nil), policy.Unsaid{User: true, WorkingDir: true}},
	} {
		got, err := tc.policy.Create(tc.req, nil)
		if err != nil || got.Unsaid != tc.want {
			t.Errorf("%s: %+v, %v", tc.name, got.Unsaid, err)
		}
	}
}
