package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"outpost.run/outpost/sandbox"
)

// RangeSize is how many host ids a machine has: 65,536 of its programs and one of its agent.
const RangeSize = 65537

// Registry is where the installations of a host keep who has which host ids.
const Registry = "/run/outpost/ids"

const (
	firstID    = 1 << 28 // above what people and other container tools use; /etc/subuid ranges end far below
	blockSlots = 1024    // ranges of one installation
	blocks     = 58      // so that the last ends below 2^32 - 2^16
)

// Ranges hands out host id ranges. An installation has a block of them that no other on this host has; which of a block
// are in use, the machines that are there tell.
type Ranges struct {
	block int
	mu    sync.Mutex
	used  map[int]bool
}

// NewRanges takes a block for the installation; registry is a directory that all installations of the host share.
func NewRanges(registry, installation, dataDir string) (*Ranges, error) {
	if err := os.MkdirAll(registry, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(registry, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	claim := installation + " " + dataDir
	free := -1
	for n := range blocks {
		b, err := os.ReadFile(claimFile(registry, n))
		switch {
		case string(b) == claim:
			return &Ranges{block: n, used: map[int]bool{}}, nil
		case free < 0 && (errors.Is(err, os.ErrNotExist) || err == nil && abandoned(string(b))):
			free = n
		}
	}
	if free < 0 {
		return nil, fmt.Errorf("all %d blocks of host ids are taken by other installations (%s)", blocks, registry)
	}
	return &Ranges{block: free, used: map[int]bool{}}, os.WriteFile(claimFile(registry, free), []byte(claim), 0o600)
}

func claimFile(registry string, n int) string {
	return filepath.Join(registry, fmt.Sprintf("block-%02d", n))
}

// abandoned: the data directory of the installation that claimed a block is gone, or another's.
func abandoned(claim string) bool {
	id, dir, _ := strings.Cut(claim, " ")
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return true
	}
	b, err := os.ReadFile(filepath.Join(dir, "installation"))
	return err == nil && strings.TrimSpace(string(b)) != id
}

// Take gives a range that no machine has.
//
// Errors: Capacity, all are in use.
func (r *Ranges) Take() (slot int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for slot := range blockSlots {
		if !r.used[slot] {
			r.used[slot] = true
			return slot, nil
		}
	}
	return 0, sandbox.Errorf(sandbox.Capacity, nil, "this host runs as many machines as it can: try again later")
}

// Keep says that a range found on the host is in use.
func (r *Ranges) Keep(slot int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[slot] = true
}

// Free gives a range back, when nothing of it is left on the host.
func (r *Ranges) Free(slot int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, slot)
}

// Slot is the range that begins with a host id, if one of ours does.
func (r *Ranges) Slot(base int) (slot int, ok bool) {
	slot = (base-firstID)/RangeSize - r.block*blockSlots
	return slot, slot >= 0 && slot < blockSlots && r.Base(slot) == base
}

// Base is the first host id of a range.
func (r *Ranges) Base(slot int) int { return firstID + (r.block*blockSlots+slot)*RangeSize }
