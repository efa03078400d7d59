package service

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/internal/spool"
	"outpost.run/outpost/sandbox"
)

func openExecs(t *testing.T, most int64) *execs {
	t.Helper()
	s, err := spool.Open(t.TempDir(), most)
	if err != nil {
		t.Fatal(err)
	}
	return newExecs(s, 1<<30, nil, slog.New(slog.DiscardHandler))
}

// ends makes a record of an exec that wrote so much and has ended.
func (x *execs) ends(namespace, sandboxID string, wrote int) *exec {
	e := x.open(namespace, sandboxID, false, ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), MaxOutputBytes: 1 << 30}, policy.Exec{MaxOutputBytes: 1 << 20}, func() {})
	_, _ = e.Stdout.Write(make([]byte, wrote))
	x.close(e, sandbox.ExecResult{}, nil)
	return e
}

func TestRecordsGoWithTheirTimeAndTheirSandbox(t *testing.T) {
	x := openExecs(t, 1<<30)
	one, other := x.ends("a", "sb_1", 100_000), x.ends("a", "sb_2", 10)
	runs := x.open("a", "sb_1", false, ExecSpec{ID: "exec_runs"}, policy.Exec{}, func() {})
	if x.find("a", "sb_1", one.ID) != one || x.find("b", "sb_1", one.ID) != nil || x.find("a", "sb_2", one.ID) != nil || len(x.of("a", "sb_1")) != 2 {
		t.Error("records are found by who they belong to")
	}
	x.forgetOf("sb_1")
	if x.find("a", "sb_1", one.ID) != nil || x.find("a", "sb_1", "exec_runs") != runs || x.spool.Used() != 0 {
		t.Error("a sandbox's records go with it, but for what runs")
	}
	if err := one.Stdout.Wait(context.Background(), 0); err != nil {
		t.Error("who reads one that is gone finds its end:", err)
	}
	x.expire(time.Now().Add(time.Hour))
	if x.find("a", "sb_2", other.ID) != nil || x.memory != 0 || len(x.ended) != 0 {
		t.Errorf("after its time: %d bytes, %v", x.memory, x.ended)
	}
	x.close(runs, sandbox.ExecResult{}, context.Canceled)
	if len(x.byID) != 0 || len(x.in) != 0 {
		t.Errorf("left: %v %v", x.byID, x.in)
	}
}

func TestWhoHasMostOfItGivesWay(t *testing.T) {
	x := openExecs(t, 4<<20)
	modest := x.ends("modest", "sb_m", 200_000)
	var greedy []*exec
	for range 30 {
		greedy = append(greedy, x.ends("greedy", "sb_g", 200_000))
	}
	for range keepExecs + 10 {
		x.ends("many", "sb_n", 1)
	}
	if x.find("modest", "sb_m", modest.ID) == nil || x.find("greedy", "sb_g", greedy[29].ID) == nil {
		t.Error("records of who has little, and the newest, stay")
	}
	if n := len(x.of("many", "sb_n")); n != keepExecs {
		t.Errorf("%d records of one namespace", n)
	}
}

func TestCollectedFilesCount(t *testing.T) {
	x := openExecs(t, 4<<20)
	var all []*exec
	for i := range 40 {
		e := x.open("a", "sb_1", false, ExecSpec{ID: fmt.Sprintf("exec_%02d", i)}, policy.Exec{}, func() {})
		x.close(e, sandbox.ExecResult{Files: map[string]sandbox.FileContent{"big": make([]byte, 8<<20)}}, nil)
		all = append(all, e)
	}
	if n := len(x.of("a", "sb_1")); n != 31 || x.memory > keepExecMemory {
		t.Errorf("%d records of 8 MiB are kept in %d bytes", n, x.memory)
	}
	for _, e := range all[9:] {
		x.discard(e)
	}
	if x.memory != 0 || len(x.byID) != 0 {
		t.Errorf("left: %d bytes", x.memory)
	}
}

func TestNewOutputIsKeptWholeBesideOlder(t *testing.T) {
	x := openExecs(t, 4<<20)
	small := x.ends("a", "sb_1", 10)
	for range 30 {
		if kept, total, _ := x.ends("a", "sb_1", 200_000).Stdout.State(); kept != total {
			t.Fatalf("%d of %d bytes kept: older output does not give way", kept, total)
		}
	}
	if x.find("a", "sb_1", small.ID) == nil {
		t.Error("a record gave way that has nothing in files")
	}
}
