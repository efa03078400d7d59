package node_test

import (
	"context"
	"slices"
	"testing"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/node"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// createPython makes an ephemeral sandbox whose interpreters can be started ahead.
func createPython(t *testing.T, n *node.Node) string {
	t.Helper()
	s := spec(sandbox.Ephemeral)
	s.Language = "python"
	if _, err := n.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// filled is a node whose pool has machines.
func filled(t *testing.T) (*install, *node.Node, string) {
	t.Helper()
	i := newInstall(t)
	i.pool = node.PoolBounds{MaxIdle: 64, MaxBytes: 1 << 30}
	n := i.open()
	t.Cleanup(func() { _ = n.Close(context.WithoutCancel(t.Context()), true) }) // more than once: the test closes it, too
	if _, err := n.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	id := createPython(t, n)
	for range 3 {
		prints(t, n, id)
	}
	until(t, "the pool has machines", func() bool { return n.Pool().Idle >= 2 && n.Pool().Making == 0 })
	return i, n, id
}

func prints(t *testing.T, n *node.Node, id string) service.ExecOutcome {
	t.Helper()
	o, err := run(t.Context(), n, id, "print('x')", nil)
	if err != nil || o.StdoutBytes != 2 || o.ExitCode != 0 {
		t.Fatalf("%+v, %v", o, err)
	}
	return o
}

// of are the machines on the host by whose they are.
func (i *install) of(sandboxID string) []engine.Handle {
	i.t.Helper()
	all, err := i.engine.List(context.WithoutCancel(i.t.Context()))
	if err != nil {
		i.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(h engine.Handle) bool { return sandboxID != "" && h.SandboxID != sandboxID })
}

func TestPoolLeavesNothing(t *testing.T) {
	i, n, _ := filled(t)
	if len(i.of(engine.Pooled)) < 2 {
		t.Fatalf("on the host are %v", i.of(""))
	}
	if err := n.Close(t.Context(), false); err != nil {
		t.Error(err)
	}
	if left := i.of(""); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
}

func TestTheSweepSparesThePool(t *testing.T) {
	i, n, id := filled(t)
	before := i.of(engine.Pooled)
	n.Sweep(t.Context())
	after := i.of(engine.Pooled)
	for _, h := range before {
		if !slices.Contains(after, h) {
			t.Errorf("%v was swept away", h)
		}
	}
	hits := n.Pool().Hits
	if o := prints(t, n, id); o.Start != "warm" || n.Pool().Hits != hits+1 {
		t.Errorf("after the sweep an exec started %s: %+v", o.Start, n.Pool())
	}
}

func TestALeasedMachineIsItsSandboxes(t *testing.T) {
	i, n, _ := filled(t)
	hits, pooled := n.Pool().Hits, i.of(engine.Pooled)
	id := createPython(t, n)
	if n.Pool().Hits != hits+1 {
		t.Fatalf("it was not leased: %+v", n.Pool())
	}
	mine := i.of(id)
	if len(mine) != 1 || !slices.ContainsFunc(pooled, func(h engine.Handle) bool { return h.ID == mine[0].ID }) {
		t.Errorf("the sandbox has %v, in the pool were %v", mine, pooled)
	}
	if err := n.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
	if left := i.of(id); len(left) > 0 {
		t.Errorf("after its deletion it has %v", left)
	}
}

func TestWhatAProgramCantUseIsKeptForTheNext(t *testing.T) {
	_, n, id := filled(t)
	code := "print('x')"
	for range 3 {
		o, err := n.Exec(t.Context(), id, service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Code: &code, Env: [][2]string{{"PYTHONUTF8", "1"}}, Limits: spec(sandbox.Ephemeral).Limits, MaxOutputBytes: 100},
			service.Streams{Stdout: &begun{said: make(chan struct{})}, Stderr: &begun{said: make(chan struct{})}})
		if err != nil || o.Start != "cold" {
			t.Errorf("with a variable that decides: %+v, %v", o, err)
		}
	}
	discarded := n.Pool().Discarded
	if o := prints(t, n, id); o.Start != "warm" {
		t.Errorf("without: %+v", o)
	}
	if discarded > 0 {
		t.Errorf("%d machines were given up", discarded)
	}
}

// TestAPooledMachineOfAFormerDaemonGoes opens a second daemon where the first died.
func TestAPooledMachineOfAFormerDaemonGoes(t *testing.T) {
	i, former, _ := filled(t)
	before := i.of("")
	i.pool = node.PoolBounds{}
	n := i.open()
	if _, err := n.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	until(t, "they are gone", func() bool {
		return !slices.ContainsFunc(i.of(""), func(h engine.Handle) bool { return slices.Contains(before, h) })
	})
	_ = former.Close(t.Context(), true)
	if err := n.Close(t.Context(), true); err != nil {
		t.Error(err)
	}
}
