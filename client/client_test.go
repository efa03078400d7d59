package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// serve is a server with one answer, and a client of it.
func serve(t *testing.T, h http.HandlerFunc, options ...client.Option) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(s.URL+"/", "secret", options...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExecSendsTheContractsRequest(t *testing.T) {
	code := "print(1)"
	var got, auth, body string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, auth, body = r.Method+" "+r.URL.EscapedPath()+" "+r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(b)
		io.WriteString(w, `{"id":"exec_1","stdout":"1\n","exit_code":3,"termination_reason":"exited","files":{"a":{"base64":"/w=="}}}`)
	}, client.WithNamespace("acme"))
	r, err := c.Exec(t.Context(), "sb_1/..", sandbox.ExecRequest{Code: &code})
	if err != nil {
		t.Fatal(err)
	}
	if want := "POST /auth/v1/seed/acme/sandbox/sb_1%2F../exec application/json"; got != want {
		t.Errorf("request %q, want %q", got, want)
	}
	if auth != "Bearer secret" || body != `{"code":"print(1)"}` {
		t.Errorf("authorization %q, body %s", auth, body)
	}
	if r.ExitCode != 3 || r.Stdout != "1\n" || string(r.Files["a"]) != "\xff" {
		t.Errorf("result %+v", r)
	}
}

func TestErrorsKeepCodeDetailsAndRequestID(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "req_1")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(422)
		io.WriteString(w, `{"error":{"code":"invalid_request","message":"two faults","request_id":"req_1","details":[{"field":"env[0]","reason":"no pair"}]}}`)
	})
	_, err := c.Create(t.Context(), sandbox.CreateRequest{})
	var e *sandbox.Error
	var s *client.StatusError
	if !errors.As(err, &e) || !errors.As(err, &s) {
		t.Fatalf("error %v has no sandbox.Error or no StatusError", err)
	}
	if e.Code != sandbox.Invalid || e.Message != "two faults" || len(e.Details) != 1 || e.RetryAfterSecs != 7 {
		t.Errorf("error %+v", e)
	}
	if s.Status != 422 || s.RequestID != "req_1" {
		t.Errorf("status %+v", s)
	}
}

func TestAnAnswerOfAnotherServerIsAnError(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "<h1>Bad Gateway</h1>", http.StatusBadGateway)
	})
	if err := c.Delete(t.Context(), "sb_1"); sandbox.CodeOf(err) != sandbox.Internal || !strings.Contains(err.Error(), "Bad Gateway") {
		t.Errorf("error %v", err)
	}
}

func TestAllReadsEveryPage(t *testing.T) {
	const pages = 3
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("page"))
		if r.URL.Query().Get("label") != "k:v" {
			t.Errorf("query %s lost the label", r.URL.RawQuery)
		}
		json.NewEncoder(w).Encode(sandbox.Page[sandbox.Sandbox]{
			Data: []sandbox.Sandbox{{ID: strconv.Itoa(n)}}, Pagination: sandbox.Pagination{Page: n, TotalPages: pages}})
	})
	all, err := c.All(t.Context(), client.ListOptions{Labels: []string{"k:v"}})
	if err != nil || len(all) != pages || all[2].ID != "3" {
		t.Errorf("All = %v, %v", all, err)
	}
}

func TestAServerBesideIsFoundByItsDataDirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := client.FindLocal(dir); !errors.Is(err, client.ErrNoLocal) {
		t.Errorf("FindLocal of an empty folder: %v, want ErrNoLocal", err)
	}
	want := client.Local{URL: "http://127.0.0.1:1", PID: 4}
	if err := os.WriteFile(filepath.Join(dir, "server.json"), []byte(`{"url":"http://127.0.0.1:1","pid":4}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := client.FindLocal(dir); err != nil || got != want {
		t.Errorf("FindLocal = %+v, %v, want %+v", got, err, want)
	}
}

func TestAnEndWithAsManyFilesAsThereMayBeIsRead(t *testing.T) {
	content := strings.Repeat("\x00", 8<<20) // JSON takes six bytes for each
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "event: exit\ndata: ")
		json.NewEncoder(w).Encode(sandbox.ExecResult{ExitCode: 3, Files: map[string]sandbox.FileContent{"a": sandbox.FileContent(content)}})
		io.WriteString(w, "\n")
	})
	r, err := c.ExecLive(t.Context(), "sb_1", sandbox.ExecRequest{}, client.Live{})
	if err != nil || r.ExitCode != 3 || string(r.Files["a"]) != content {
		t.Errorf("%v; exit %d, %d bytes", err, r.ExitCode, len(r.Files["a"]))
	}
}

func TestAFollowerWaitsWhereTooManyFollowOrTheServerIsStartedAgain(t *testing.T) {
	calls := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch calls++; {
		case calls < 8:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, `{"error":{"code":"rate_limited","message":"m"}}`)
			return
		case calls == 8:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":{"code":"shutting_down","message":"m"}}`)
			return
		}
		w.Header().Set("X-Next-Offset", "3")
		w.Header().Set("X-Finished", "true")
		_, _ = io.WriteString(w, "all")
	})
	var said strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.FollowExec(ctx, "sb_1", "exec_1", sandbox.Stdout, 0, &said); !errors.Is(err, context.DeadlineExceeded) || calls != 1 {
		t.Errorf("%d calls, %v: it was told to wait", calls, err)
	}
	calls = 7
	if err := c.FollowExec(t.Context(), "sb_1", "exec_1", sandbox.Stdout, 0, &said); err != nil || said.String() != "all" {
		t.Errorf("%q, %v", said.String(), err)
	}
}

func TestAConnectionThatEndsBeforeTheAnswerIsLost(t *testing.T) {
	for name, said := range map[string]string{"before it": "", "within it": "event: start\ndata: {}\n\n"} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if said != "" {
				io.WriteString(w, said)
				http.NewResponseController(w).Flush()
			}
			panic(http.ErrAbortHandler)
		})
		for call, err := range map[string]error{
			"live": func() error {
				_, err := c.ExecLive(t.Context(), "sb_1", sandbox.ExecRequest{}, client.Live{})
				return err
			}(),
			"not": func() error { _, err := c.Exec(t.Context(), "sb_1", sandbox.ExecRequest{}); return err }(),
		} {
			if sandbox.CodeOf(err) != sandbox.Lost || !errors.Is(err, client.ErrSevered) || errors.As(err, new(*client.StatusError)) {
				t.Errorf("%s, %s: %v", name, call, err)
			}
		}
	}
}

func TestACallThatIsMadeOnceHasItsKey(t *testing.T) {
	keys := map[string]string{}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		keys[r.Method] = r.Header.Get("Idempotency-Key")
		_, _ = io.WriteString(w, "{}")
	})
	ctx := client.Once(t.Context(), "k1")
	if _, err := c.Submit(ctx, sandbox.JobRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Job(ctx, "job_1"); err != nil {
		t.Fatal(err)
	}
	if keys["POST"] != "k1" || keys["GET"] != "" {
		t.Errorf("%v", keys)
	}
}
