package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/internal/jobs"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/internal/server"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/spool"
	"outpost.run/outpost/internal/store/sqlite"
	"outpost.run/outpost/sandbox"
)

const rootToken = "the-first-credential-of-these-tests-0"

// paper is a runtime without machines: what these tests are about happens before one is needed. Its programs are
// "echo" (to stdout), "wait" (until ctx or the sandbox ends, or release is called) and "panic".
type paper struct {
	mu      sync.Mutex
	boxes   map[string]context.CancelFunc
	alive   map[string]context.Context
	runs    int
	running chan struct{} // a word for each program that waits
	release chan struct{}
	ended   chan sandbox.TerminationReason
	closed  context.Context
	close   context.CancelFunc
}

func newPaper() *paper {
	p := &paper{boxes: map[string]context.CancelFunc{}, alive: map[string]context.Context{},
		running: make(chan struct{}, 100), release: make(chan struct{}), ended: make(chan sandbox.TerminationReason, 100)}
	p.closed, p.close = context.WithCancel(context.Background())
	return p
}

func (p *paper) Sync(ctx context.Context, known []service.SandboxSpec) ([]service.SandboxState, error) {
	var states []service.SandboxState
	for _, s := range known {
		state, err := p.Create(ctx, s)
		if err != nil {
			return nil, err
		}
		states = append(states, state)
	}
	return states, nil
}

func (p *paper) Create(_ context.Context, s service.SandboxSpec) (service.SandboxState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive[s.ID], p.boxes[s.ID] = context.WithCancel(p.closed)
	return service.SandboxState{ID: s.ID, Status: sandbox.Running, Isolation: sandbox.Isolation{Engine: "paper", Effective: []string{}, Missing: []string{}}}, nil
}

func (p *paper) Exec(ctx context.Context, id string, e service.ExecSpec, out service.Streams) (service.ExecOutcome, error) {
	p.mu.Lock()
	alive := p.alive[id]
	p.runs++
	p.mu.Unlock()
	o := service.ExecOutcome{Reason: sandbox.Exited, Start: "cold"}
	switch code := *e.Code; code {
	case "panic":
		panic("a bug")
	case "wait":
		p.running <- struct{}{}
		select {
		case <-p.release:
		case <-ctx.Done():
			o.Reason = sandbox.Cancelled
		case <-alive.Done():
			if p.closed.Err() != nil {
				return o, sandbox.Errorf(sandbox.Lost, nil, "the server stopped")
			}
			o.Reason = sandbox.Cancelled
		}
		p.ended <- o.Reason
	default:
		n, err := io.WriteString(out.Stdout, code)
		if err != nil {
			return o, err
		}
		o.StdoutBytes = int64(n)
	}
	return o, nil
}

func (p *paper) Stop(context.Context, string) error { return nil }

func (p *paper) Start(_ context.Context, id string) (service.SandboxState, error) {
	return p.Inspect(context.Background(), id)
}

func (p *paper) OpenPort(_ context.Context, _ string, port sandbox.Port) (sandbox.Port, error) {
	return port, nil
}

func (p *paper) ClosePort(context.Context, string, int, string) error { return nil }

func (p *paper) Images(context.Context, string, bool) ([]sandbox.ImageInfo, error) { return nil, nil }

func (p *paper) Watch(ctx context.Context, _ chan<- service.Event) error {
	<-ctx.Done()
	return nil
}

func (p *paper) Control(context.Context, string, string, service.TerminalControl) error { return nil }

// Files has one file to get, and takes whatever is to be unpacked.
func (p *paper) Files(_ context.Context, _ string, op service.FileOp, body io.Reader, out service.FileSink) error {
	switch {
	case op.Verb == sandbox.Unpack:
		_, err := io.Copy(io.Discard, body)
		return err
	case op.Verb == sandbox.GetFile && op.Path == "there":
		content := "what is in it"
		if err := out.Found(sandbox.FileInfo{Size: int64(len(content)), Mode: "0640"}); err != nil {
			return err
		}
		if op.Length > 0 {
			content = content[:op.Length]
		}
		_, err := io.WriteString(out, content)
		return err
	}
	return sandbox.Errorf(sandbox.FileNotFound, nil, "a paper machine has no files")
}

func (p *paper) Processes(context.Context, string) ([]sandbox.Process, error) { return nil, nil }

func (p *paper) Signal(context.Context, string, int, int) error { return nil }

func (p *paper) Delete(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end := p.boxes[id]; end != nil {
		end()
		delete(p.boxes, id)
	}
	return nil
}

func (p *paper) Inspect(_ context.Context, id string) (service.SandboxState, error) {
	return service.SandboxState{ID: id, Status: sandbox.Running}, nil
}

func (p *paper) Close(context.Context, bool) error { p.close(); return nil }

// fixture is a server on paper machines.
type fixture struct {
	*testing.T
	paper *paper
	svc   *service.Service
	url   string
	log   *locked
	file  string
}

type settings struct {
	perMinute, burst int
	policy           policy.Policy
	file             string // of the store; "" a fresh one
	metrics          string // who may read them
	audit            *audit.Log
	required         bool
}

func start(t *testing.T, change func(*settings)) *fixture {
	t.Helper()
	s := settings{metrics: "operator", policy: policy.Default(), file: filepath.Join(t.TempDir(), "outpost.db")}
	if change != nil {
		change(&s)
	}
	store, err := sqlite.Open(t.Context(), s.file)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, paper: newPaper(), log: &locked{}, file: s.file}
	log := slog.New(slog.NewTextHandler(f.log, nil))
	measures := metrics.New()
	output, err := spool.Open(t.TempDir(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	queue, err := jobs.Open(t.Context(), jobs.Options{Dir: t.TempDir(), Concurrency: 2, PerNamespace: 2, MaxQueued: 5, MaxQueuedInAll: 8, MaxQueuedBytes: 1 << 30, Keep: time.Hour, KeepBytes: 1 << 30, Secret: []byte("s"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = queue.Close(context.Background()) })
	f.svc = service.New(service.Config{Queue: queue, Output: output, Policy: s.policy, Store: store, Runtime: f.paper, RootToken: rootToken, Log: log, Ended: measures.ExecEnds})
	measures.WatchLoad(f.svc.Load)
	if err := f.svc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	web, err := server.New(server.Config{Service: f.svc, Log: log, Version: "test", PerMinute: s.perMinute, Burst: s.burst, Metrics: measures, MetricsAccess: s.metrics, Audit: s.audit, AuditRequired: s.required})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(web.Handler())
	f.url = h.URL
	t.Cleanup(func() {
		f.paper.close()
		h.Close()
		_ = store.Close()
	})
	return f
}

type locked struct {
	mu sync.Mutex
	w  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// logged is what the log has by now.
func (f *fixture) logged() string {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	return f.log.w.String()
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (r reply) code() string {
	var e sandbox.ErrorAnswer
	_ = json.Unmarshal(r.body, &e)
	return string(e.Error.Code)
}

func field[T any](t *testing.T, r reply, name string) T {
	t.Helper()
	var all map[string]json.RawMessage
	var v T
	if err := json.Unmarshal(r.body, &all); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	if err := json.Unmarshal(all[name], &v); err != nil {
		t.Fatalf("%s of %d %s: %v", name, r.status, r.body, err)
	}
	return v
}

const boxes = "/auth/v1/seed/default/sandbox"

// call makes a call; headers are pairs "Name: value" that replace the usual ones. It never fails because of a status.
func (f *fixture) call(method, path, body string, headers ...string) reply {
	f.Helper()
	return f.callAs(f.Context(), "Bearer "+rootToken, method, path, body, headers...)
}

func (f *fixture) callAs(ctx context.Context, auth, method, path, body string, headers ...string) reply {
	f.Helper()
	r, err := http.NewRequestWithContext(ctx, method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	r.Header.Set("Authorization", auth)
	r.Header.Set("Content-Type", "application/json")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		if ctx.Err() == nil {
			f.Error(err)
		}
		return reply{}
	}
	defer a.Body.Close() //nolint:errcheck // read whole below
	text, err := io.ReadAll(a.Body)
	if err != nil {
		f.Error(err)
	}
	return reply{a.StatusCode, a.Header, text}
}

// key makes an API key and gives its Authorization header.
func (f *fixture) key(role, namespace string) (auth, id string) {
	f.Helper()
	r := f.call("POST", "/auth/v1/api_keys", `{"name":"k","namespace":"`+namespace+`","role":"`+role+`"}`)
	if r.status != http.StatusCreated {
		f.Fatalf("a key: %d %s", r.status, r.body)
	}
	return "API-Key k$" + field[string](f.T, r, "secret"), field[string](f.T, r, "id")
}

func (f *fixture) wants(what string, r reply, status int, code string) {
	f.Helper()
	if r.status != status || r.code() != code {
		f.Errorf("%s: %d %s, want %d %s", what, r.status, r.body, status, code)
	}
}

// soon waits for an event, and fails the test where it does not come.
func soon[T any](f *fixture, what string, c <-chan T) (v T) {
	f.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		f.Fatalf("not within 20 s: %s", what)
	}
	return v
}
