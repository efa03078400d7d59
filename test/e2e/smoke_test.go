package e2e_test

import "testing"

func TestAProgramRunsInEveryPreset(t *testing.T) {
	leakCheck(t, shared)
	for _, p := range presets {
		t.Run(string(p), func(t *testing.T) {
			if out := clean(t, shared.once(t, in(p), "print(6*7)")); out != "42" {
				t.Errorf("printed %q", out)
			}
		})
	}
}
