package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"outpost.run/outpost/sandbox"
)

// busy is what stands before a server and refuses the first sending of each call.
type busy struct {
	at string

	mu      sync.Mutex
	refused map[string]bool // by Idempotency-Key
	again   int             // calls that came again
}

func newBusy(t *testing.T, s *server) *busy {
	t.Helper()
	to, err := url.Parse(s.Address())
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	b := &busy{refused: map[string]bool{}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		n, key := len(b.refused), r.Header.Get("Idempotency-Key")
		first := key == "" || !b.refused[key]
		if first {
			b.refused[key] = true
		} else {
			b.again++
		}
		b.mu.Unlock()
		if !first {
			pass.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader([]int{http.StatusServiceUnavailable, http.StatusTooManyRequests}[n%2])
		_, _ = w.Write([]byte(`{"error":{"code":"capacity","message":"try again","request_id":"req_000000000000"}}`))
	}))
	t.Cleanup(front.Close)
	b.at = front.URL
	return b
}

// agentTools are the examples, each as it is started; a reason where it can't be.
var agentTools = map[string]func(t *testing.T) *exec.Cmd{
	"go": func(t *testing.T) *exec.Cmd {
		program := filepath.Join(t.TempDir(), "agent-tool")
		if err := build(filepath.Join("..", ".."), program, "./examples/agent-tool/go"); err != nil {
			t.Fatal(err)
		}
		return exec.Command(program)
	},
	"python": func(t *testing.T) *exec.Cmd {
		onPath(t, "python3")
		return exec.Command("python3", example("python", "agent_tool.py"))
	},
	"typescript": func(t *testing.T) *exec.Cmd {
		onPath(t, "node")
		source := example("typescript", "agent_tool.mts")
		for _, flags := range [][]string{nil, {"--experimental-strip-types", "--no-warnings"}} {
			if out, err := exec.Command("node", append(flags, "-p", "process.features.typescript")...).Output(); err == nil && strings.TrimSpace(string(out)) == "strip" {
				return exec.Command("node", append(flags, source)...)
			}
		}
		plain := filepath.Join(t.TempDir(), "agent_tool.mjs") // this Node knows no types
		if out, err := exec.Command("go", "tool", "esbuild", source, "--log-level=warning", "--outfile="+plain).CombinedOutput(); err != nil {
			t.Fatalf("esbuild: %v\n%s", err, out)
		}
		return exec.Command("node", plain)
	},
}

func example(parts ...string) string {
	return filepath.Join(append([]string{"..", "..", "examples", "agent-tool"}, parts...)...)
}

func onPath(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("there is no " + program + " here: scripts/install-tools tests installs it")
	}
}

func TestExamplesOfAnAgentsTool(t *testing.T) {
	leakCheck(t, shared)
	for language, prepared := range agentTools {
		t.Run(language, func(t *testing.T) {
			front := newBusy(t, shared)
			cmd := prepared(t)
			cmd.Env = append(os.Environ(), "OUTPOST_URL="+front.at, "OUTPOST_TOKEN="+adminToken, "OUTPOST_NAMESPACE=default")
			e := finish(t, cmd)
			if e.code != 0 || e.stderr != "" {
				t.Fatalf("exit %d\n%s%s", e.code, e.stdout, e.stderr)
			}
			checkAgentsCalls(t, e.stdout)
			if front.again != len(front.refused) || front.again != 4 {
				t.Errorf("%d of %d refused calls came again", front.again, len(front.refused))
			}

			cmd = prepared(t)
			cmd.Args = append(cmd.Args, `{"language": "bash", "code": "id"}`)
			cmd.Env = append(os.Environ(), "OUTPOST_URL="+shared.Address(), "OUTPOST_TOKEN=wrong")
			if e := finish(t, cmd); e.code == 0 || e.stdout != "" || !strings.Contains(e.stderr, "unauthorized") || strings.Count(e.stderr, "\n") != 1 {
				t.Errorf("what the model can't mend is told to it: exit %d\n%s%s", e.code, e.stdout, e.stderr)
			}
			for what, call := range map[string]string{"no JSON": "{", "no server": `{"language": "bash", "code": "id"}`} {
				cmd := prepared(t)
				cmd.Args, cmd.Env = append(cmd.Args, call), append(os.Environ(), "OUTPOST_URL=http://127.0.0.1:1", "OUTPOST_TOKEN=x")
				if e := finish(t, cmd); e.code == 0 || e.stdout != "" || strings.Count(e.stderr, "\n") != 1 {
					t.Errorf("%s: exit %d\n%s%s", what, e.code, e.stdout, e.stderr)
				}
			}
		})
	}
}

// checkAgentsCalls looks at the answers of the four sample calls.
func checkAgentsCalls(t *testing.T, lines string) {
	t.Helper()
	type answer struct {
		sandbox.ExecResult
		Error *sandbox.ErrorBody
	}
	var all []answer
	for line := range strings.Lines(lines) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, a)
	}
	if len(all) != 4 {
		t.Fatalf("%d answers of 4:\n%s", len(all), lines)
	}
	if a := all[0]; a.Stdout != "3 numbers\n" || a.ExitCode != 0 || string(a.Files["sum.txt"]) != "42" {
		t.Errorf("files in and out: %+v", a)
	}
	if a := all[1]; a.ExitCode != 1 || !strings.Contains(a.Stderr, "ZeroDivisionError") || a.TerminationReason != sandbox.Exited {
		t.Errorf("a program that fails: %+v", a)
	}
	if a := all[2]; a.ExitCode != 124 || a.Stdout != "working\n" || a.TerminationReason != sandbox.TimedOut {
		t.Errorf("a program that never ends: %+v", a)
	}
	if a := all[3]; a.Error == nil || a.Error.Code != sandbox.UnsupportedLanguage || !strings.Contains(a.Error.Message, "python") {
		t.Errorf("a language that there is not: %+v", a.Error)
	}
}
