package microvm

import (
	"slices"
	"testing"

	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/internal/vmm/qemu"
	"outpost.run/outpost/sandbox"
)

// bare is a monitor's machine under no protection at all.
type bare struct{ vmm.VM }

func (bare) Isolation() []string { return nil }

func TestAGuestCanOnlyLieAboutItself(t *testing.T) {
	m := &machine{e: &Engine{monitor: qemu.New([]string{"qemu"}, true)}, vm: bare{}}
	said := append(slices.Clone(vmm.Protections), "seccomp")
	i := m.isolation(sandbox.Isolation{Requested: said, Effective: said})
	if !slices.Equal(i.Effective, []string{"seccomp"}) || !slices.Equal(i.Missing, vmm.Protections) {
		t.Errorf("%+v", i)
	}
}
