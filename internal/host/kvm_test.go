package host

import "testing"

// TestKVMSaysWhetherItRunsGuests: whatever this host can, the answer comes, and not late.
func TestKVMSaysWhetherItRunsGuests(t *testing.T) {
	if err := TryKVM(); err != nil {
		t.Log(err)
	}
}
