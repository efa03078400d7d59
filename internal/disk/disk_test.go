package disk

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

func TestInstallationsNeverShareHostIDs(t *testing.T) {
	registry := t.TempDir()
	a, b := t.TempDir(), t.TempDir()
	first, err := NewRanges(registry, "aaaa", a)
	if err != nil {
		t.Fatal(err)
	}
	second, err := NewRanges(registry, "bbbb", b)
	if err != nil {
		t.Fatal(err)
	}
	if lo, hi := first.Base(blockSlots-1)+RangeSize, second.Base(0); lo > hi {
		t.Errorf("the first installation's ids end at %d, the second's begin at %d", lo, hi)
	}
	again, err := NewRanges(registry, "aaaa", a)
	if err != nil || again.Base(0) != first.Base(0) {
		t.Errorf("after a restart the ids begin at %d, not %d (%v)", again.Base(0), first.Base(0), err)
	}
	if err := os.RemoveAll(a); err != nil {
		t.Fatal(err)
	}
	if heir, err := NewRanges(registry, "cccc", t.TempDir()); err != nil || heir.Base(0) != first.Base(0) {
		t.Errorf("the block of an installation that is gone is not used again (%v)", err)
	}
	if top := uint64((&Ranges{block: blocks - 1}).Base(blockSlots-1)) + RangeSize; top > 1<<32-1<<16 {
		t.Errorf("ids go up to %d, beyond 32 bits", top)
	}
}

func TestARangeIsTakenOnceUntilItIsFree(t *testing.T) {
	r, err := NewRanges(t.TempDir(), "aaaa", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r.Keep(0)
	seen := map[int]bool{0: true}
	for range blockSlots - 1 {
		slot, err := r.Take()
		if err != nil || seen[slot] {
			t.Fatalf("slot %d a second time, or none (%v)", slot, err)
		}
		seen[slot] = true
	}
	if _, err := r.Take(); sandbox.CodeOf(err) != sandbox.Capacity {
		t.Errorf("one too many: %v", err)
	}
	r.Free(7)
	if slot, err := r.Take(); slot != 7 || err != nil {
		t.Errorf("got %d, %v, not the one given back", slot, err)
	}
}

func TestABlankDiskIsSparse(t *testing.T) {
	if err := ProbeLoop(); err != nil {
		t.Skip(err)
	}
	m, err := NewMaker(filepath.Join(t.TempDir(), "templates"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, journal := range []bool{false, true} {
		for _, size := range []int{1, 16, 512, 10240} {
			path := filepath.Join(t.TempDir(), "disk.img")
			if err := m.Make(t.Context(), path, size, journal); err != nil {
				t.Fatal(err)
			}
			free, err := freeBytes(path)
			if want := int64(size) << 20; err != nil || free < want || free > want+256<<10 {
				t.Errorf("%d MiB, journal %v: room for %d bytes, want %d (%v)", size, journal, free, want, err)
			}
			if used := blocksOf(t, path); used > 1<<20 {
				t.Errorf("%d MiB, journal %v: a blank disk takes %d bytes of the host's", size, journal, used)
			}
		}
	}
}

func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
