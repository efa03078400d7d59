package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// outpost runs the command line against a server with one answer, as main does.
func outpost(t *testing.T, status int, answer string, args ...string) (code int, stdout, stderr, request string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		request = r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(b)
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer s.Close()
	t.Setenv("OUTPOST_URL", s.URL)
	t.Setenv("OUTPOST_TOKEN", "secret")
	var out, log bytes.Buffer
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader("from stdin"))
	cmd.SetOut(&out)
	cmd.SetErr(&log)
	code = exitCode(&log, cmd.ExecuteContext(t.Context()))
	return code, out.String(), log.String(), request
}

func TestRunPassesOutputAndExitCodeThrough(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.sh")
	if err := os.WriteFile(file, []byte("exit 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	answer := `{"stdout":"/w==","stderr":"b2gK","exit_code":7,"termination_reason":"exited"}`
	code, out, log, req := outpost(t, 200, answer, "run", "-i", file, "--flag", "of the program")
	if code != 7 || out != "\xff" || log != "oh\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, log)
	}
	for _, want := range []string{"POST /auth/v1/seed/default/sandbox/execute Bearer secret", `"language":"bash"`, `"code":"exit 7"`,
		`"args":["--flag","of the program"]`, `"stdin":"ZnJvbSBzdGRpbg=="`} {
		if !strings.Contains(req, want) {
			t.Errorf("request lacks %s: %s", want, req)
		}
	}
}

func TestExecSendsACommandAfterDashes(t *testing.T) {
	_, _, _, req := outpost(t, 200, `{}`, "exec", "sb_1", "--", "ls", "-l")
	if !strings.Contains(req, "sandbox/sb_1/exec") || !strings.Contains(req, `"command":["ls","-l"]`) {
		t.Errorf("request %s", req)
	}
}

func TestAnAPIKeyIsUsedAsSuch(t *testing.T) {
	_, _, _, req := outpost(t, 204, "", "rm", "--token", "ci$s3cret", "sb_1")
	if !strings.Contains(req, "API-Key ci$s3cret") {
		t.Errorf("request %s", req)
	}
}

func TestAnErrorNamesEveryField(t *testing.T) {
	code, _, log, _ := outpost(t, 422, `{"error":{"code":"invalid_request","message":"two faults","details":[{"field":"env[0]","reason":"no pair"},{"field":"name","reason":"too long"}]}}`,
		"create", "python")
	if code != exitFailed || log != "outpost: two faults (invalid_request)\n  env[0]: no pair\n  name: too long\n" {
		t.Errorf("code %d, stderr %q", code, log)
	}
}

func TestRmGoesOnAfterAFailure(t *testing.T) {
	code, out, log, _ := outpost(t, 404, `{"error":{"code":"not_found","message":"there is no such sandbox"}}`, "rm", "sb_1", "sb_2")
	if code != exitFailed || out != "" || strings.Count(log, "there is no such sandbox") != 2 {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, log)
	}
}

// The token of a data directory is for the server of that directory alone: whoever names another address must not
// hand it the operator's credential.
func TestTheLocalTokenGoesToNoOtherAddress(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"server.json": `{"url":"http://127.0.0.1:1"}`, "admin.token": "the operator's"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("OUTPOST_URL", "")
	t.Setenv("OUTPOST_TOKEN", "")
	if _, err := (connection{dataDir: dir}).open(); err != nil {
		t.Errorf("the server beside: %v", err)
	}
	if _, err := (connection{dataDir: dir, url: "http://127.0.0.1:2"}).open(); err == nil {
		t.Error("another address was given the local token")
	}
}
