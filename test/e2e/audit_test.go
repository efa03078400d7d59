package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/sandbox"
)

// audited reads an audit log until it has as many lines as are wanted.
func audited(t *testing.T, path string, want int) (all []audit.Entry) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all = nil
		for line := range bytes.Lines(text) {
			var e audit.Entry
			if err := json.Unmarshal(line, &e); err != nil && bytes.HasSuffix(line, []byte("\n")) {
				t.Fatalf("%s: %v", line, err)
			}
			all = append(all, e)
		}
		if len(all) == want {
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("%d lines, want %d:\n%s", len(all), want, text)
		}
	}
}

func TestTheAuditLogOverRotationAndASandboxsWholeLife(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "audit.log"), filepath.Join(dir, "audit.log.1")
	s := newServer(t, "--audit-file", path, "--audit-required", "true")
	leakCheck(t, s)
	box := s.box(t, sandbox.CreateRequest{Mode: new("stateful"), Env: [][2]string{{"PASSWORD", "S3cret"}}})
	result := s.python(t, box.ID, "print('S3cret')")
	clean(t, result)
	if _, err := s.Get(t.Context(), box.ID); err != nil {
		t.Fatal(err)
	}
	first := audited(t, path, 4)
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(s.lastWords(), "the audit log was opened anew"); time.Sleep(time.Millisecond) {
		if !s.running() || time.Now().After(end) {
			t.Fatalf("not opened anew:\n%s", s.lastWords())
		}
	}
	if _, err := s.Patch(t.Context(), box.ID, sandbox.PatchRequest{TTLSecs: new(1)}); err != nil {
		t.Fatal(err)
	}
	second := audited(t, path, 3)
	audited(t, old, 4)
	said := ""
	for _, e := range append(first, second...) {
		said += e.Action + " " + e.Outcome + " " + e.Reason + "\n"
		if e.Object["sandbox_id"] != box.ID && e.Outcome != audit.Begun {
			t.Errorf("not about the sandbox: %+v", e)
		}
		if byItself := e.Reason != ""; (e.Credential == nil) != byItself || byItself == (e.RequestID != "") || e.Namespace != "default" {
			t.Errorf("by whom: %+v", e)
		}
	}
	if want := "sandbox.create begun \nsandbox.create done \nexec.run begun \nexec.run done \nsandbox.change begun \nsandbox.change done \nsandbox.delete done ttl\n"; said != want {
		t.Errorf("it says\n%s, want\n%s", said, want)
	}
	if e := first[3]; e.Object["exec_id"] != result.ID || e.Status != 200 || e.Credential.ID != "root" || e.Credential.Role != "operator" {
		t.Errorf("the exec: %+v", e)
	}
	for _, p := range []string{path, old} {
		info, err := os.Stat(p)
		text, err2 := os.ReadFile(p)
		if err != nil || err2 != nil || info.Mode().Perm() != 0o600 || bytes.Contains(text, []byte("S3cret")) || bytes.Contains(text, []byte(adminToken)) {
			t.Errorf("%s: %v, %v, or a secret in it", p, info.Mode(), err)
		}
	}
	if now := s.measured(t); now[`outpost_audit_lines_total{outcome="written"}`] != 7 || now[`outpost_audit_lines_total{outcome="failed"}`] != 0 {
		t.Errorf("by /metrics %v lines are written", now[`outpost_audit_lines_total{outcome="written"}`])
	}
}
