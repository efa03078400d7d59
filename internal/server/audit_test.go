package server_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/internal/server"
)

func TestEveryRouteThatChangesSomethingIsAudited(t *testing.T) {
	for _, r := range server.RoutesOf(start(t, nil).web) {
		if changes := r.Method != "GET"; changes && r.Audit == "" {
			t.Errorf("%s %s has no word in the audit log", r.Method, r.Path)
		}
	}
}

func TestWhoDidWhatIsWrittenWithoutSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f := start(t, func(s *settings) {
		var err error
		if s.audit, err = audit.Open(path, nil); err != nil {
			t.Fatal(err)
		}
	})
	writer, id := f.key("write", "default")
	made := f.callAs(t.Context(), writer, "POST", boxes, `{"language":"python","env":[["K","secret-value"]]}`)
	box := field[string](t, made, "id")
	ran := f.callAs(t.Context(), writer, "POST", boxes+"/"+box+"/exec", `{"code":"secret-code"}`)
	f.callAs(t.Context(), writer, "PUT", boxes+"/"+box+"/files?path=a", "secret-content")
	f.callAs(t.Context(), "Bearer nobody", "DELETE", boxes+"/"+box, "")
	f.callAs(t.Context(), writer, "DELETE", boxes+"/"+box, "")
	f.call("GET", boxes, "")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "secret") {
		t.Errorf("a secret is in it:\n%s", text)
	}
	var got []audit.Entry
	for line := range strings.Lines(string(text)) {
		var e audit.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.At.IsZero() || !strings.HasPrefix(e.RequestID, "req_") || e.Client != "127.0.0.1" {
			t.Errorf("%+v", e)
		}
		got = append(got, e)
	}
	want := []audit.Entry{
		{Action: "key.create", Credential: "root", Role: "operator", Made: id, Status: 201},
		{Action: "sandbox.create", Credential: id, Role: "write", Namespace: "default", Made: box, Status: 201},
		{Action: "exec.run", Credential: id, Role: "write", Namespace: "default", Object: box, Made: field[string](t, ran, "id"), Status: 200},
		{Action: "file.write", Credential: id, Role: "write", Namespace: "default", Object: box, Path: "a", Status: 409, Code: "not_stateful"},
		{Action: "sandbox.delete", Object: box, Status: 401, Code: "unauthorized"},
		{Action: "sandbox.delete", Credential: id, Role: "write", Namespace: "default", Object: box, Status: 204},
	}
	for i, w := range want {
		if i >= len(got) {
			t.Fatalf("lacks %+v", w)
		}
		g := got[i]
		w.At, w.RequestID, w.Client = g.At, g.RequestID, g.Client
		if g != w {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

func TestNothingIsChangedWhileTheAuditLogIsFull(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	var log *audit.Log
	f := start(t, func(s *settings) {
		var err error
		if log, err = audit.Open(path, s.log); err != nil {
			t.Fatal(err)
		}
		s.audit = log
	})
	if r := f.call("POST", boxes, `{"language":"python"}`); r.status != 201 { // the one that finds out
		t.Fatalf("%d %s", r.status, r.body)
	}
	f.wants("a second one", f.call("POST", boxes, `{"language":"python"}`), 503, "capacity")
	f.wants("reading", f.call("GET", boxes, ""), 200, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}
	f.wants("once there is room", f.call("POST", boxes, `{"language":"python"}`), 201, "")
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), `"audit.resumed"`) || !strings.Contains(string(text), `"lost":2`) {
		t.Errorf("%s, %v", text, err)
	}
}
