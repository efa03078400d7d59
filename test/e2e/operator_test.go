package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"outpost.run/outpost/sandbox"
)

// operated starts a server by a configuration file.
func operated(t *testing.T, text string) *server {
	t.Helper()
	onThisHost(t)
	file := filepath.Join(t.TempDir(), "outpost.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return newServer(t, "--config", file)
}

const seccompOf = `print([l.split()[1] for l in open("/proc/self/status") if l.startswith("Seccomp:")][0])`

func TestSeccompIsOffOnlyByTheOperatorsLeave(t *testing.T) {
	without := sandbox.CreateRequest{Language: new("python"), Security: &sandbox.SecurityRequest{SeccompEnabled: new(false)}}
	leakCheck(t, shared)
	if _, err := shared.Create(t.Context(), without); sandbox.CodeOf(err) != sandbox.PolicyFloor {
		t.Errorf("without leave: %v", err)
	}
	s := operated(t, "policy: {allow_seccomp_disabled: true}")
	made := s.box(t, without)
	if i := made.Isolation; slices.Contains(i.Effective, "seccomp") || slices.Contains(i.Requested, "seccomp") || len(i.Missing) > 0 {
		t.Errorf("isolation claims %+v", i)
	}
	if out := clean(t, s.python(t, made.ID, seccompOf)); out != "0" {
		t.Errorf("switched off: Seccomp is %s", out)
	}
	if out := clean(t, s.python(t, s.box(t, sandbox.CreateRequest{}).ID, seccompOf)); out != "2" {
		t.Errorf("not switched off: Seccomp is %s", out)
	}
}

func TestTheOperatorsFloorMaximaDefaultsAndQuotasHold(t *testing.T) {
	s := operated(t, `
policy:
  floor: {preset: maximum}
  defaults: {memory_mb: 96, cpu_cores: 0.5, timeout_ms: 4000, disk_mb: 40, pids: 40}
  maximum: {memory_mb: 100, cpu_cores: 1, timeout_ms: 5000, disk_mb: 50, disk_size_gb: 1, pids: 50}
  quota: {sandboxes: 2, concurrent_execs: 1}
`)
	refused := func(what string, r sandbox.CreateRequest, code sandbox.Code) {
		t.Helper()
		r.Language = new("python")
		if _, err := s.Create(t.Context(), r); sandbox.CodeOf(err) != code {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}
	for _, p := range []sandbox.Preset{sandbox.Development, sandbox.Standard} {
		refused(string(p), sandbox.CreateRequest{Security: &sandbox.SecurityRequest{Preset: new(string(p))}}, sandbox.PolicyFloor)
	}
	refused("root", sandbox.CreateRequest{Security: &sandbox.SecurityRequest{User: new("0")}}, sandbox.PolicyFloor)
	for what, l := range map[string]sandbox.LimitsRequest{
		"memory": {MemoryMB: new(101)}, "cpu": {CPUCores: new(1.01)}, "timeout": {TimeoutMS: new(5001)}, "disk": {DiskMB: new(51)}, "pids": {Pids: new(51)},
	} {
		refused(what, sandbox.CreateRequest{ResourceLimits: &l}, sandbox.Invalid)
	}
	refused("disk_size_gb", sandbox.CreateRequest{DiskSizeGB: new(2)}, sandbox.Invalid)
	first := s.box(t, stateful())
	want := sandbox.Limits{MemoryMB: 96, CPUCores: 0.5, TimeoutMS: 4000, DiskMB: 40, Pids: 40}
	if first.ResourceLimits != want || first.Security.Preset != sandbox.Maximum || first.Security.User != "65534" {
		t.Errorf("defaults: %+v, %+v", first.ResourceLimits, first.Security)
	}
	s.box(t, sandbox.CreateRequest{})
	refused("a third sandbox", sandbox.CreateRequest{}, sandbox.QuotaExceeded)
	type ended struct {
		result sandbox.ExecResult
		err    error
	}
	held := make(chan ended, 1)
	go func() {
		code := "import time; time.sleep(1000)"
		r, err := s.Exec(t.Context(), first.ID, sandbox.ExecRequest{Code: &code})
		held <- ended{r, err}
	}()
	for used := 0; used == 0; {
		u, err := s.Usage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		used = u.Execs.Used
		select {
		case e := <-held:
			t.Fatalf("the first exec: %+v, %v", e.result, e.err)
		default:
		}
	}
	code := "print(1)"
	if _, err := s.Exec(t.Context(), first.ID, sandbox.ExecRequest{Code: &code}); sandbox.CodeOf(err) != sandbox.QuotaExceeded {
		t.Errorf("a second exec at once: %v", err)
	}
	if e := <-held; e.err != nil || !e.result.TimedOut {
		t.Errorf("over the default time: %+v, %v", e.result, e.err)
	}
	if err := s.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	s.box(t, sandbox.CreateRequest{}) // in the place of the first
}
