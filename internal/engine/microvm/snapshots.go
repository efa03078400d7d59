package microvm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
)

// Guests are made of snapshots: the first of a kind boots, and another one is booted beside it for nobody, up to where its keeper waits for
// a machine, with its disk never opened. What is written then is the snapshot; later guests of the kind go on from there, with files of
// their own behind the drives. Snapshots end with the daemon: so the monitor, the processor and the keeper are the same all their life.
const (
	templateMark   = "t_"    // begins the ids of guests that become snapshots
	snapshotMark   = "snap-" // begins the names of snapshots' folders
	snapshotsMost  = 4
	snapshotMostMB = 2048 // of a guest's memory, which is on the host's disk once
	rehearsalTime  = time.Minute
	quietTime      = 2 * time.Second // for the guest to let go of the link: one that was written in the midst of that took seconds to hear the next
)

// snapshots are those of one engine.
type snapshots struct {
	on  bool
	ctx context.Context // ends with the engine
	end context.CancelFunc

	work sync.WaitGroup
	mu   sync.Mutex
	all  map[string]*snapshot // by kind
	uses int
}

type snapshot struct {
	dir   string // "" while it is made, or could not be
	used  int    // the number of its last use
	users sync.WaitGroup
}

// kindOf says which guests are alike until their machine starts; "": this one is like no other.
func (m *machine) kindOf() string {
	if !m.e.snapshots.on || m.spec.Again || len(m.spec.Mounts) > 0 || guestMemory(m.spec.Limits.MemoryMB) > snapshotMostMB {
		return ""
	}
	return fmt.Sprintf("%s %d %d %s", strings.Join(m.spec.Layers, " "), guestMemory(m.spec.Limits.MemoryMB), cores(m.spec.Limits), strings.Join(m.spec.Programs, " "))
}

// take gives the snapshot of a kind until release; where there is none, nil, and it lets one be made.
func (e *Engine) takeSnapshot(m *machine) (s *snapshot, release func()) {
	kind := m.kindOf()
	if kind == "" {
		return nil, func() {}
	}
	x := &e.snapshots
	x.mu.Lock()
	defer x.mu.Unlock()
	x.uses++
	if s := x.all[kind]; s != nil {
		s.used = x.uses
		if s.dir == "" {
			return nil, func() {}
		}
		s.users.Add(1)
		return s, s.users.Done
	}
	made := &snapshot{used: x.uses}
	x.all[kind] = made
	x.bound()
	spec := m.spec
	x.work.Go(func() {
		dir, err := e.makeSnapshot(x.ctx, spec)
		if err != nil {
			e.log.Warn("guests of a kind can't be made of a snapshot, and boot", "error", err)
			return
		}
		x.mu.Lock()
		made.dir = dir
		x.mu.Unlock()
	})
	return nil, func() {}
}

// bound forgets the snapshot that was not used for longest where there are too many.
func (x *snapshots) bound() {
	if len(x.all) <= snapshotsMost {
		return
	}
	oldest := ""
	for kind, s := range x.all {
		if s.dir != "" && (oldest == "" || s.used < x.all[oldest].used) {
			oldest = kind
		}
	}
	if oldest != "" {
		x.forget(oldest)
	}
}

// forget removes a snapshot when nobody is being made of it. Guests that were have it open.
func (x *snapshots) forget(kind string) {
	s := x.all[kind]
	delete(x.all, kind)
	x.work.Go(func() {
		s.users.Wait()
		_ = removeDir(s.dir)
	})
}

// spoilt says that no guest came of a snapshot: the next of its kind boots.
func (e *Engine) spoilt(s *snapshot) {
	x := &e.snapshots
	x.mu.Lock()
	defer x.mu.Unlock()
	for kind, other := range x.all {
		if other == s {
			x.forget(kind)
		}
	}
}

// makeSnapshot boots a guest for nobody and writes it.
func (e *Engine) makeSnapshot(ctx context.Context, spec engine.MachineSpec) (dir string, err error) {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	spec.ID, spec.SandboxID, spec.Stateful = templateMark+hex.EncodeToString(b), engine.Pooled, false // as a machine that is made for nobody, it yields
	m := &machine{e: e, spec: spec}
	var undo host.Undo
	defer undo.Run()
	for _, do := range []func(context.Context, *host.Undo) error{m.claim, m.makeGroup, m.makeTemplateDisk, m.boot, m.connect} {
		if err := do(ctx, &undo); err != nil {
			return "", err
		}
	}
	defer func() {
		m.link.Close()
		m.vm.Kill()
		<-m.vm.Dead()
	}()
	limited, cancel := context.WithTimeout(ctx, rehearsalTime)
	defer cancel()
	if err := m.link.Rehearse(limited, m.drives.inside(spec)); err != nil {
		return "", err
	}
	m.link.Close()
	select {
	case <-time.After(quietTime):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	dir = filepath.Join(e.dir, snapshotMark+hex.EncodeToString(b))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := m.vm.Snapshot(ctx, dir); err != nil {
		_ = removeDir(dir)
		return "", err
	}
	return dir, disk.PunchZeros(filepath.Join(dir, "memory"))
}

// makeTemplateDisk makes a file that stands where each guest of the snapshot has its disk; it is never read.
func (m *machine) makeTemplateDisk(_ context.Context, undo *host.Undo) error {
	path := m.e.diskPath(m.spec.ID)
	undo.Add(func() { _ = os.Remove(path) })
	return os.WriteFile(path, make([]byte, spareBytes), 0o600)
}

// openSnapshots removes what a former daemon left.
func (e *Engine) openSnapshots(on bool) error {
	x := &e.snapshots
	x.on, x.all = on, map[string]*snapshot{}
	x.ctx, x.end = context.WithCancel(context.Background())
	for _, name := range e.root.Children() {
		if strings.HasPrefix(name, templateMark) {
			if err := e.removeGroup(x.ctx, name); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return err
	}
	for _, d := range entries {
		path := filepath.Join(e.dir, d.Name())
		switch {
		case strings.HasPrefix(d.Name(), templateMark):
			if err := e.monitor.Remove(path); err != nil {
				return err
			}
			_ = os.Remove(e.diskPath(d.Name()))
		case !strings.HasPrefix(d.Name(), snapshotMark):
			continue
		}
		if err := removeDir(path); err != nil {
			return err
		}
	}
	return nil
}

// closeSnapshots waits until nothing of snapshots is under way, and removes them.
func (e *Engine) closeSnapshots() {
	x := &e.snapshots
	x.end()
	x.work.Wait()
	x.mu.Lock()
	for kind := range x.all {
		if x.all[kind].dir != "" {
			x.forget(kind)
		}
	}
	x.mu.Unlock()
	x.work.Wait()
}

// Snapshots says how many kinds of guests are made of one.
func (e *Engine) Snapshots() (n int) {
	x := &e.snapshots
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.all {
		if s.dir != "" {
			n++
		}
	}
	return n
}
