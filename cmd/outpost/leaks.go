package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/engine/microvm"
	"outpost.run/outpost/internal/store/sqlite"
)

// settling is how long what a server is just making or removing may belong to no sandbox.
const settling = time.Second

// leak is what a machine, or a sandbox beside its machines, has on the host while it belongs to no sandbox.
type leak struct {
	Machine   string   `json:"machine"`    // "" for what a sandbox had beside its machines
	SandboxID string   `json:"sandbox_id"` // that it was made for; "" where nothing tells
	Things    []string `json:"things"`
}

// reportLeaks prints what carries the installation's mark and belongs to no sandbox; found ones are exit status 1.
func reportLeaks(cmd *cobra.Command, dataDir string) error {
	leaks, err := findLeaks(cmd.Context(), dataDir)
	if err != nil {
		return err
	}
	err = printAnswer(cmd, map[string]any{"leaks": leaks}, func(w io.Writer) error { return printLeaks(w, leaks) })
	if err == nil && len(leaks) > 0 {
		err = exitError(exitFailed)
	}
	return err
}

func printLeaks(w io.Writer, leaks []leak) error {
	for _, l := range leaks {
		whose := "machine " + l.Machine
		if l.Machine == "" {
			whose = "what " + l.SandboxID + " had"
		}
		fmt.Fprintf(w, "%s belongs to no sandbox:\n  %s\n", whose, strings.Join(l.Things, "\n  "))
	}
	last := "a running server removes these within a minute, and a start of one at once"
	if len(leaks) == 0 {
		last = "nothing leaks: all that carries this installation's mark belongs to a sandbox"
	}
	_, err := fmt.Fprintln(w, last)
	return err
}

// findLeaks looks, and where it finds something looks again for a moment: only what stays is a leak.
func findLeaks(ctx context.Context, dataDir string) ([]leak, error) {
	id, err := os.ReadFile(filepath.Join(dataDir, "installation"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no server ever ran on %s: name its data directory by --data-dir", dataDir)
	}
	if err != nil {
		return nil, err
	}
	dataDir, err = filepath.Abs(dataDir)
	if err != nil {
		return nil, err
	}
	left := map[string]leak{}
	for end := time.Now().Add(settling); ; {
		now, err := ownerless(ctx, dataDir, strings.TrimSpace(string(id)))
		if err != nil {
			return nil, err
		}
		if len(left) > 0 { // only what is seen each time
			maps.DeleteFunc(now, func(machine string, _ leak) bool { _, seen := left[machine]; return !seen })
		}
		left = now
		if len(left) == 0 || time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settling / 20):
		}
	}
	return slices.AppendSeq([]leak{}, maps.Values(left)), nil
}

// ownerless lists machines whose sandbox is in no record. An execute call has no record: while a server runs, a machine
// in which a program runs is taken for one's.
func ownerless(ctx context.Context, dataDir, installation string) (map[string]leak, error) {
	running, err := serverRuns(dataDir)
	if err != nil {
		return nil, err
	}
	daemon := 0
	if running {
		daemon = serverPid(dataDir)
	}
	held, err := container.FindHeld(dataDir, installation, daemon)
	if err != nil {
		return nil, err
	}
	guests, err := microvm.FindHeld(dataDir, installation)
	if err != nil {
		return nil, err
	}
	held = append(held, guests...)
	known, err := recorded(ctx, dataDir, running)
	if err != nil {
		return nil, err
	}
	all, busy := map[string]leak{}, map[string]bool{}
	for _, h := range held {
		pooled := running && h.SandboxID == engine.Pooled
		if !known[h.SandboxID] && !pooled && !(running && h.Busy) {
			all[h.Machine] = leak{Machine: h.Machine, SandboxID: h.SandboxID, Things: h.Things}
		}
		busy[h.SandboxID] = running && h.Busy
	}
	return all, ownerlessThings(dataDir, func(id string) bool {
		_, recorded := known[id] // an ephemeral sandbox's disk outlives the server, too
		return recorded || busy[id]
	}, all)
}

// ownerlessThings adds the persistent disks and GPUs of which owned says that they have no owner.
func ownerlessThings(dataDir string, owned func(sandboxID string) bool, all map[string]leak) error {
	add := func(id, thing string) {
		if !owned(id) {
			all[id] = leak{SandboxID: id, Things: append(all[id].Things, thing)}
		}
	}
	for _, folder := range []string{"volumes", "gpus"} {
		dir := filepath.Join(dataDir, folder)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if folder == "volumes" {
				add(strings.TrimSuffix(e.Name(), ".img"), "disk "+path)
				continue
			}
			if id, err := os.ReadFile(path); err == nil && !strings.HasPrefix(e.Name(), ".new-") {
				add(string(id), "gpu "+e.Name())
			}
		}
	}
	return nil
}

// recorded are the sandboxes that may have machines: without a server, those that outlive it.
func recorded(ctx context.Context, dataDir string, running bool) (_ map[string]bool, err error) {
	store, err := sqlite.Open(ctx, filepath.Join(dataDir, "outpost.db"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	records, err := store.AllSandboxes(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, r := range records {
		known[r.ID] = running || r.Mode == "stateful"
	}
	return known, nil
}

// serverPid is what the running server says of itself; 0 where it is just starting.
func serverPid(dataDir string) int {
	var card struct{ Pid int }
	b, err := os.ReadFile(filepath.Join(dataDir, "server.json"))
	if err != nil || json.Unmarshal(b, &card) != nil {
		return 0
	}
	return card.Pid
}

// serverRuns says whether a server has the data directory.
func serverRuns(dataDir string) (bool, error) {
	f, err := os.Open(filepath.Join(dataDir, "lock"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
