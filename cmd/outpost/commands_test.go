package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
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

func TestWrongUsageSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"cp", "a"}, exitUsage, "there is no TO: outpost cp FROM TO"},
		{[]string{"cp"}, exitUsage, "there is no FROM and no TO: "},
		{[]string{"cp", "a", "b", "c"}, exitUsage, `"c" is one argument too many`},
		{[]string{"rm"}, exitUsage, "there is no ID: outpost rm ID..."},
		{[]string{"kill", "sb_1"}, exitUsage, "there is no PID: "},
		{[]string{"execs", "cancel", "sb_1"}, exitUsage, "there is no EXEC: outpost execs cancel ID EXEC"},
		{[]string{"events", "sb_1", "sb_2"}, exitUsage, `"sb_2" is one argument too many: outpost events [ID]`},
		{[]string{"create"}, exitUsage, "there is no LANGUAGE"},
		{[]string{"ls", "x"}, exitUsage, `"x" is one argument too many: outpost ls`},
		{[]string{"exec"}, exitOwn, "there is no ID"},
		{[]string{"exec", "sb_1", "-c", "print(1)"}, exitOwn, "-c stands where the program does: put flags of outpost before the sandbox's id, and -- before a command"},
		{[]string{"exec", "sb_1", "--json", "--", "ls"}, exitOwn, "before the sandbox's id"},
		{[]string{"exec", "sb_1", "ls", "-l"}, exitOwn, "as in outpost exec sb_1 -- ls -l"},
		{[]string{"exec", "sb_1", "--"}, exitOwn, "-- is followed by a command"},
		{[]string{"exec", "-c", "x", "sb_1", "--", "ls"}, exitOwn, "there are two programs"},
		{[]string{"exec", "--file", "/no/such", "-c", "x", "sb_1"}, exitOwn, "/no/such: no such file"},
		{[]string{"exec", "-t", "-e", "A=B", "-d", "sb_1", "--", "sh"}, exitOwn, "takes no --env, --detach"},
		{[]string{"exec", "-t", "--file", "x", "--timeout-secs", "1", "--memory-mb", "64", "--dep", "x", "sb_1", "--", "sh"}, exitOwn, "takes no --dep, --file, --timeout-secs, --memory-mb"},
		{[]string{"exec", "-t", "-c", "x", "sb_1"}, exitOwn, "takes no --code"},
		{[]string{"kill", "-s", "FOO", "sb_1", "2"}, exitUsage, "there is no signal FOO: name one as TERM, SIGTERM or 15"},
		{[]string{"kill", "-99", "sb_1", "2"}, exitUsage, "there is no signal 99"},
		{[]string{"kill", "-x", "sb_1", "2"}, exitUsage, "unknown shorthand flag"},
		{[]string{"cp", "-", "sb_1:"}, exitUsage, "needs a name, as in outpost cp - sb_1:FILE"},
		{[]string{"cp", "--json", "sb_1:x", "-"}, exitUsage, "can't be both"},
	} {
		code, _, log, request := outpost(t, 200, "{}", tc.args...)
		if code != tc.code || !strings.Contains(log, tc.want) || request != "" {
			t.Errorf("%q: exit %d, want %d and %q; sent %q\n%s", tc.args, code, tc.code, tc.want, request, log)
		}
	}
}

func TestArgumentsAfterAProgramAreItsOwn(t *testing.T) {
	_, _, log, request := outpost(t, 200, "{}", "exec", "-c", "x", "sb_1", "-v", "--json")
	if !strings.Contains(request, `"args":["-v","--json"]`) {
		t.Errorf("%s\n%s", request, log)
	}
}

func TestKillTakesASignalAsKillDoes(t *testing.T) {
	for want, all := range map[string][][]string{
		"SIGTERM": {{}},
		"SIGKILL": {{"-9"}, {"-KILL"}, {"-SIGKILL"}, {"-s", "KILL"}, {"-s", "kill"}, {"-s", "9"}, {"-s", "SIGKILL"}, {"--signal=sigkill"}, {"--json", "-9"}},
		"SIGUSR1": {{"-10"}, {"-USR1"}, {"-s", "usr1"}},
	} {
		for _, flags := range all {
			code, _, log, request := outpost(t, 204, "", append(append([]string{"kill"}, flags...), "sb_1", "12")...)
			if code != 0 || !strings.Contains(request, "/sb_1/processes/12/signal") || !strings.Contains(request, `{"signal":"`+want+`"}`) {
				t.Errorf("%q: exit %d, %s, want %s\n%s", flags, code, request, want, log)
			}
		}
	}
	if _, _, _, request := outpost(t, 204, "", "kill", "--", "sb_1", "-9"); !strings.Contains(request, "/-9/") || strings.Contains(request, "SIGKILL") {
		t.Errorf("what follows -- is a process: %s", request)
	}
}

func TestAReasonIsSaidOnce(t *testing.T) {
	for _, tc := range []struct{ answer, want string }{
		{`{"code":"invalid_request","message":"name: too long","details":[{"field":"name","reason":"too long"}]}`, "outpost: name: too long (invalid_request)\n"},
		{`{"code":"deps_failed","message":"no such package","details":[{"field":"deps","reason":"no such package"}]}`, "outpost: no such package (deps_failed)\n"},
		{`{"code":"invalid_request","message":"name: too long; env[0]: no pair","details":[{"field":"name","reason":"too long"},{"field":"env[0]","reason":"no pair"}]}`,
			"outpost: 2 things are wrong (invalid_request)\n  name: too long\n  env[0]: no pair\n"},
		{`{"code":"disk_full","message":"x does not fit"}`, "outpost: x does not fit (disk_full)\n  how much that is, --disk-mb says: of outpost create for a sandbox, of outpost run for one program\n"},
	} {
		if _, _, log, _ := outpost(t, 422, `{"error":`+tc.answer+`}`, "create", "python"); log != tc.want {
			t.Errorf("%s:\n%s want\n%s", tc.answer, log, tc.want)
		}
	}
}

func TestServeSaysOfEachKeyWhatItIsAndItsDefault(t *testing.T) {
	_, help, _, _ := outpost(t, 200, "", "serve", "--help")
	for _, want := range [][]string{
		{"--drain-secs seconds ", "(default 30)"}, {"--policy-defaults-memory-mb MiB ", "(default 512)"}, {"--jobs-concurrency number ", "(default 8)"},
		{"--audit-required true|false "}, {"--log-level debug|info|warn|error ", "(default info)"}, {"--listen text ", "(default 127.0.0.1:8080)"},
		{"--policy-maximum-timeout-ms milliseconds ", "(default 3600000)"}, {"--images-store-gb GiB ", "(default 20)"}, {"--gpus {name:value} "}, {"--images-local-roots a,b "},
	} {
		if !slices.ContainsFunc(strings.Split(help, "\n"), func(line string) bool {
			return !slices.ContainsFunc(want, func(part string) bool { return !strings.Contains(line, part) })
		}) {
			t.Errorf("no line has %q:\n%s", want, help)
		}
	}
	if strings.Contains(help, " string ") && strings.Count(help, " string ") > 1 { // --config's
		t.Errorf("flags are strings:\n%s", help)
	}
}

func TestExecsShowHowTheyEnded(t *testing.T) {
	_, out, _, _ := outpost(t, 200, `{"data":[{"id":"exec_1","status":"finished","exit_code":7,"command":"sh -c \u001b[2J"},{"id":"exec_2","status":"running"},{"id":"exec_3","status":"finished","error":{"code":"lost"}}]}`, "execs", "sb_1")
	var cells [][]string
	for line := range strings.Lines(out) {
		cells = append(cells, strings.Fields(line)[:3])
	}
	want := [][]string{{"ID", "STATUS", "EXIT"}, {"exec_1", "finished", "7"}, {"exec_2", "running", "-"}, {"exec_3", "finished", "lost"}}
	if !slices.EqualFunc(cells, want, slices.Equal) {
		t.Errorf("%v", out)
	}
}

func TestALostConnectionIsToldWithWhatToDo(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "event: start\ndata: {\"id\":\"exec_1\"}\n\nevent: stdout\ndata: {\"text\":\"on\"}\n\n")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer s.Close()
	t.Setenv("OUTPOST_URL", s.URL)
	t.Setenv("OUTPOST_TOKEN", "secret")
	for _, args := range [][]string{{"exec", "sb_1", "--", "x"}, {"exec", "--json", "sb_1", "--", "x"}} {
		var out, log bytes.Buffer
		cmd := rootCommand()
		cmd.SetIn(strings.NewReader(""))
		cmd.SetOut(&out)
		cmd.SetErr(&log)
		code := execute(t.Context(), cmd, args)
		if code != exitOwn || !strings.Contains(log.String(), "connection to the server was lost") || !strings.Contains(log.String(), "outpost execs sb_1") || strings.Contains(log.String(), "EOF") || strings.Contains(log.String(), "lost: ") {
			t.Errorf("%v: exit %d\n%s%s", args, code, &out, &log)
		}
	}
}

func TestPiecesOfTextAreText(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pieces []string
		want   []string
	}{
		{"a character in two pieces", []string{"a\xe2\x82", "\xac b"}, []string{`"a"`, `"€ b"`}},
		{"a character in three", []string{"\xf0\x9f", "\x98", "\x80"}, []string{`"😀"`}},
		{"what is no text", []string{"\xff"}, []string{`{"base64":"/w=="}`}},
		{"an end within a character", []string{"a\xe2"}, []string{`"a"`, `{"base64":"4g=="}`}},
	} {
		var out bytes.Buffer
		p := pieces{to: &out, stream: "stdout"}
		for _, b := range tc.pieces {
			if n, err := p.Write([]byte(b)); n != len(b) || err != nil {
				t.Errorf("%s: %d, %v", tc.name, n, err)
			}
		}
		if err := p.end(); err != nil {
			t.Error(err)
		}
		want := ""
		for _, data := range tc.want {
			want += `{"stream":"stdout","data":` + data + "}\n"
		}
		if out.String() != want {
			t.Errorf("%s:\n%swant\n%s", tc.name, &out, want)
		}
	}
}

func TestArgumentsAreWantedAsTheUseSays(t *testing.T) {
	for _, c := range []struct {
		use, args, want string
	}{
		{"ls ID[:PATH]", "", "there is no ID[:PATH]: "}, {"ls ID[:PATH]", "a", ""}, {"ls ID[:PATH]", "a b", `"b" is one argument too many`},
		{"open ID GUEST[:HOST][/udp]", "a", "there is no GUEST[:HOST][/udp]: "}, {"events [ID]", "", ""}, {"events [ID]", "a", ""}, {"events [ID]", "a b", `"b" is one`},
		{"rm ID...", "", "there is no ID: "}, {"rm ID...", "a b c", ""}, {"x [flags] A [B...]", "a b c", ""}, {"x [flags] A [B...]", "", "there is no A: "},
	} {
		err := asUsed(&cobra.Command{Use: c.use}, strings.Fields(c.args))
		if got := fmt.Sprint(err); c.want == "" && err != nil || !strings.HasPrefix(strings.TrimPrefix(got, "<nil>"), c.want) {
			t.Errorf("%s with %q: %v", c.use, c.args, err)
		}
	}
}
