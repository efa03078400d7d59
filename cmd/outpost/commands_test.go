package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"outpost.run/outpost/sandbox"
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
	cmd.SetIn(strings.NewReader("from stdin"))
	cmd.SetOut(&out)
	cmd.SetErr(&log)
	code = execute(t.Context(), cmd, args)
	return code, out.String(), log.String(), request
}

func TestRunPassesOutputAndExitCodeThrough(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.sh")
	if err := os.WriteFile(file, []byte("exit 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	answer := "event: stdout\ndata: {\"offset\":0,\"base64\":\"/w==\"}\n\nevent: stderr\ndata: {\"offset\":0,\"text\":\"oh\\n\"}\n\n" +
		"event: exit\ndata: {\"exit_code\":7,\"termination_reason\":\"exited\"}\n\n"
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

// A program's code may be any: what goes wrong beside it must not look like one.
func TestExitCodesTellWhoseFailureItIs(t *testing.T) {
	refused := `{"error":{"code":"not_found","message":"there is no such sandbox","request_id":"req_1"}}`
	for _, tc := range []struct {
		name string
		args []string
		want int
	}{
		{"the server refuses", []string{"ls"}, exitFailed},
		{"the server refuses an exec", []string{"exec", "-c", "x", "sb_1"}, exitOwn},
		{"a flag that there is not", []string{"ls", "--bogus"}, exitUsage},
		{"too many arguments", []string{"ls", "x"}, exitUsage},
		{"a command that there is not", []string{"lss"}, exitUsage},
		{"a command of a group that there is not", []string{"image", "bogus"}, exitUsage},
		{"arguments that fit to nothing", []string{"cp", "a", "b"}, exitUsage},
		{"a flag that run has not", []string{"run", "--bogus"}, exitOwn},
		{"run without a program", []string{"run"}, exitOwn},
		{"a group alone shows its help", []string{"image"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if code, out, log, _ := outpost(t, 404, refused, tc.args...); code != tc.want {
				t.Errorf("%v: exit %d, want %d\n%s%s", tc.args, code, tc.want, out, log)
			}
		})
	}
}

func TestWithJSONErrorsAreForPrograms(t *testing.T) {
	refused := `{"error":{"code":"invalid_request","message":"one fault","request_id":"req_1","details":[{"field":"name","reason":"too long"}]}}`
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string // a part of it
	}{
		{"the server's are as it told them", []string{"create", "python", "--json"}, exitFailed, `"code":"invalid_request","message":"one fault"`},
		{"with their fields", []string{"create", "--json", "python"}, exitFailed, `"details":[{"field":"name","reason":"too long"}]`},
		{"each of several has its id", []string{"rm", "--json", "sb_1"}, exitFailed, `"id":"sb_1"`},
		{"wrong usage before the flag", []string{"ls", "--bogus", "--json"}, exitUsage, `"code":"wrong_usage"`},
		{"a program's call", []string{"run", "--json", "-c", "x"}, exitOwn, `"code":"invalid_request"`},
		{"what isn't the server's", []string{"run", "--json", "/no/such/file.py"}, exitOwn, `"code":"failed"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, log, _ := outpost(t, 422, refused, tc.args...)
			var read struct{ Error sandbox.ErrorBody }
			if err := json.Unmarshal([]byte(log), &read); err != nil || read.Error.Message == "" || code != tc.code || !strings.Contains(log, tc.want) {
				t.Errorf("%v: exit %d, want %d; %v; it lacks %s:\n%s", tc.args, code, tc.code, err, tc.want, log)
			}
		})
	}
}

func TestJSONOfAResultHasTheProgramsExitCode(t *testing.T) {
	code, out, _, req := outpost(t, 200, `{"stdout":"hi\n","exit_code":7}`, "run", "--json", "-c", "x")
	var r sandbox.ExecResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Stdout != "hi\n" || code != 7 {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	if !strings.Contains(req, `"output_encoding":"utf8"`) {
		t.Errorf("request %s", req)
	}
}

// look shows f each command that people see.
func look(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			look(c, f)
		}
	}
}

// A command with a flag of its own would print by itself.
func TestOneFlagMakesJSONOfAllCommands(t *testing.T) {
	look(rootCommand(), func(cmd *cobra.Command) {
		if cmd.HasParent() && cmd.LocalNonPersistentFlags().Lookup(jsonFlag) != nil {
			t.Errorf("%s has a flag --json of its own", cmd.CommandPath())
		}
	})
}

func TestEveryCommandAndFlagSaysWhatItIs(t *testing.T) {
	look(rootCommand(), func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s says of itself %q: want words without a full stop", cmd.CommandPath(), cmd.Short)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s says of itself %q: want words without a full stop", cmd.CommandPath(), f.Name, f.Usage)
			}
		})
	})
}
