package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestDoctorNamesWhatACrashLeftAndNothingAfterTheNextStart(t *testing.T) {
	s := newServer(t, "--pool-max-idle", "0")
	for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Ephemeral, sandbox.Stateful} {
		if _, err := s.Create(t.Context(), sandbox.CreateRequest{Language: new("python"), Mode: new(string(mode))}); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.leaks(); err != nil {
		t.Errorf("with a server: %v\n%s", err, out)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	out, err := s.command("doctor", "--leaks", "--json", "--data-dir", s.dir)
	var report struct {
		Leaks []struct {
			Machine string
			Things  []string
		}
	}
	if json.Unmarshal([]byte(out), &report) != nil || err == nil {
		t.Fatalf("after a crash: %v\n%s", err, out)
	}
	if len(report.Leaks) != 2 { // the ephemeral ones; the stateful one waits for its server
		t.Errorf("%d machines leak, want 2:\n%s", len(report.Leaks), out)
	}
	for _, l := range report.Leaks {
		things := strings.Join(l.Things, "\n")
		for _, want := range []string{"cgroup ", "folder ", "disk "} {
			if !strings.Contains(things, want) {
				t.Errorf("%s: no %sin\n%s", l.Machine, want, things)
			}
		}
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.leaks(); err != nil {
		t.Errorf("after the next start: %v\n%s", err, out)
	}
}

func TestDoctorSaysThatThisHostRunsSandboxes(t *testing.T) {
	onThisHost(t)
	out, err := shared.command("doctor")
	if err != nil || !strings.Contains(out, "container engine: usable") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDoctorSaysWhereNoServerEverRan(t *testing.T) {
	onThisHost(t)
	dir := t.TempDir()
	out, err := shared.command("doctor", "--leaks", "--data-dir", dir)
	if err == nil || !strings.Contains(out, "no server ever ran on "+dir) {
		t.Errorf("%v\n%s", err, out)
	}
}
