package filter

import (
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestEveryPresetHasAFilterTheKernelTakes(t *testing.T) {
	sizes := map[sandbox.Preset]int{}
	for _, p := range []sandbox.Preset{sandbox.Development, sandbox.Standard, sandbox.Maximum} {
		b, err := For(p)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		sizes[p] = len(b) / 8
		if sizes[p] > 4096 { // BPF_MAXINSNS
			t.Errorf("%s: %d instructions, the kernel takes 4096", p, sizes[p])
		}
	}
	if !(sizes[sandbox.Maximum] < sizes[sandbox.Standard] && sizes[sandbox.Standard] < sizes[sandbox.Development]) {
		t.Errorf("presets do not widen from maximum to development: %v", sizes)
	}
	if _, err := For("none"); err == nil {
		t.Error("an unknown preset has a filter")
	}
}
