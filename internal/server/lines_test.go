package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/server"
)

// book is where audit lines go; it can be full.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer
	full bool
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full {
		return 0, errors.New("no space left on device")
	}
	return b.text.Write(p)
}

func (b *book) Close() error { return nil }

func (b *book) fill(full bool) { b.mu.Lock(); defer b.mu.Unlock(); b.full = full }

func (b *book) all(t *testing.T) (all []audit.Entry) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range bytes.Lines(b.text.Bytes()) {
		var e audit.Entry
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// of waits for the n lines of a call; they are written after its answer.
func (b *book) of(t *testing.T, requestID string, n int) (its []audit.Entry) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		its = nil
		for _, e := range b.all(t) {
			if e.RequestID == requestID {
				its = append(its, e)
			}
		}
		if len(its) == n {
			return its
		}
		if time.Now().After(end) {
			t.Fatalf("%d lines of %s: %+v, want %d", len(its), requestID, its, n)
		}
	}
}

func audited(t *testing.T, required bool) (*fixture, *book) {
	b := &book{}
	return start(t, func(s *settings) { s.audit, s.required = audit.To(b, func(error) {}), required }), b
}

func TestEachRouteThatChangesSomethingIsAudited(t *testing.T) {
	web, err := server.New(server.Config{Log: slog.New(slog.DiscardHandler), Metrics: metrics.New()})
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^[a-z]+\.[a-z]+$`)
	for route, action := range web.Changing() {
		if !form.MatchString(action) {
			t.Errorf("%s changes something: its row needs an action for the audit log, as what.verb; it has %q", route, action)
		}
	}
	if wrong := web.Audited(); len(wrong) > 0 {
		t.Errorf("these only read: %v", wrong)
	}
}

func TestAnAuditLogSaysWhoDidWhat(t *testing.T) {
	f, b := audited(t, false)
	auth, key := f.key("write", "default")
	as := func(method, path, body string, headers ...string) reply {
		return f.callAs(t.Context(), auth, method, path, body, headers...)
	}
	made := as("POST", boxes, `{"language":"python","mode":"stateful","env":[["PASSWORD","S3cret"]]}`)
	box := field[string](t, made, "id")
	inSandbox := map[string]string{"sandbox_id": box}
	run := as("POST", boxes+"/"+box+"/exec", `{"code":"S3cret"}`, "Idempotency-Key: k")
	ofRun := map[string]string{"sandbox_id": box, "exec_id": field[string](t, run, "id")}
	for _, c := range []struct {
		what   string
		reply  reply
		action string
		want   audit.Entry
		object map[string]string
	}{
		{"create", made, "sandbox.create", audit.Entry{Outcome: audit.Done, Status: 201}, inSandbox},
		{"exec", run, "exec.run", audit.Entry{Outcome: audit.Done, Status: 200}, ofRun},
		{"a repeat", as("POST", boxes+"/"+box+"/exec", `{"code":"S3cret"}`, "Idempotency-Key: k"), "exec.run", audit.Entry{Outcome: audit.Done, Status: 200, Repeated: true}, ofRun},
		{"no such sandbox", as("DELETE", boxes+"/sb_0123456789ab", ""), "sandbox.delete", audit.Entry{Outcome: audit.Refused, Status: 404, Code: "not_found"}, map[string]string{"sandbox_id": "sb_0123456789ab"}},
		{"nonsense in the path", as("DELETE", boxes+"/S3cret", ""), "sandbox.delete", audit.Entry{Outcome: audit.Refused, Status: 404, Code: "not_found"}, nil},
		{"a bug", as("POST", boxes+"/"+box+"/exec", `{"code":"panic"}`), "exec.run", audit.Entry{Outcome: audit.Failed, Status: 500, Code: "internal"}, nil},
		{"patch", as("PATCH", boxes+"/"+box, `{"name":"n"}`), "sandbox.change", audit.Entry{Outcome: audit.Done, Status: 200}, inSandbox},
		{"stop", as("POST", boxes+"/"+box+"/stop", ""), "sandbox.stop", audit.Entry{Outcome: audit.Done, Status: 200}, inSandbox},
		{"close a port", as("DELETE", boxes+"/"+box+"/ports/8080", ""), "port.close", audit.Entry{Outcome: audit.Done, Status: 204}, map[string]string{"sandbox_id": box, "guest_port": "8080"}},
		{"write a file", as("PUT", boxes+"/"+box+"/files?path=a%2Fb", "S3cret"), "file.write", audit.Entry{Outcome: audit.Refused}, map[string]string{"sandbox_id": box, "path": "a/b"}},
		{"another's role", as("POST", "/auth/v1/api_keys", `{"name":"k"}`), "key.create", audit.Entry{Outcome: audit.Refused, Status: 403, Code: "forbidden"}, nil},
		{"delete", as("DELETE", boxes+"/"+box, ""), "sandbox.delete", audit.Entry{Outcome: audit.Done, Status: 204}, inSandbox},
	} {
		e := b.of(t, c.reply.header.Get("X-Request-Id"), 1)[0]
		if c.want.Status == 0 {
			c.want.Status, c.want.Code = c.reply.status, c.reply.code()
		}
		if e.Action != c.action || e.Outcome != c.want.Outcome || e.Status != c.want.Status || e.Code != c.want.Code || e.Repeated != c.want.Repeated {
			t.Errorf("%s: %+v, want %s %+v", c.what, e, c.action, c.want)
		}
		if c.object != nil && len(c.object) != len(e.Object) {
			t.Errorf("%s is about %v, want %v", c.what, e.Object, c.object)
		}
		for kind, id := range c.object {
			if e.Object[kind] != id {
				t.Errorf("%s is about %v, want %v", c.what, e.Object, c.object)
			}
		}
		if e.Credential == nil || *e.Credential != (audit.Credential{ID: key, Name: "k", Role: "write", Namespace: "default"}) || !strings.HasPrefix(e.Client, "127.0.0.1:") ||
			time.Since(e.Time) > time.Minute || e.DurationMS < 0 {
			t.Errorf("%s: %+v", c.what, e)
		}
	}
	nobody := f.callAs(t.Context(), "Bearer wrong", "POST", boxes, `{"language":"python"}`)
	if e := b.of(t, nobody.header.Get("X-Request-Id"), 1)[0]; e.Credential != nil || e.Outcome != audit.Refused || e.Status != 401 {
		t.Errorf("nobody: %+v", e)
	}
	job := as("POST", boxes+"/jobs", `{"language":"python","code":"S3cret"}`)
	if e := b.of(t, job.header.Get("X-Request-Id"), 1)[0]; e.Action != "job.submit" || e.Outcome != audit.Done || e.Object["job_id"] != field[string](t, job, "id") {
		t.Errorf("a job: %+v", e)
	}
	reads := as("GET", boxes, "")
	admins := f.call("POST", "/auth/v1/api_keys", `{"name":"made","namespace":"acme","role":"read"}`)
	if e := b.of(t, admins.header.Get("X-Request-Id"), 1)[0]; e.Object["key_id"] != field[string](t, admins, "id") || e.Object["role"] != "read" || e.Object["of_namespace"] != "acme" {
		t.Errorf("a key: %+v", e)
	}
	b.of(t, reads.header.Get("X-Request-Id"), 0)
	for _, secret := range []string{"S3cret", rootToken, field[string](t, admins, "secret"), strings.TrimPrefix(auth, "API-Key k$")} {
		if strings.Contains(b.text.String(), secret) {
			t.Errorf("a secret is in the audit log: %.6s…", secret)
		}
	}
}

func TestWhatCantBeAuditedIsNotDoneWhereThatIsRequired(t *testing.T) {
	f, b := audited(t, true)
	box := field[string](t, f.call("POST", boxes, `{"language":"python"}`), "id")
	ran := f.call("POST", boxes+"/"+box+"/exec", `{"code":"x"}`)
	if its := b.of(t, ran.header.Get("X-Request-Id"), 2); its[0].Outcome != audit.Begun || its[0].Object["sandbox_id"] != box || its[1].Outcome != audit.Done || its[1].Object["exec_id"] == "" {
		t.Errorf("its lines: %+v", its)
	}
	b.fill(true)
	refused := f.call("POST", boxes+"/"+box+"/exec", `{"code":"x"}`)
	f.wants("an exec", refused, 503, "capacity")
	if refused.header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After: %q", refused.header.Get("Retry-After"))
	}
	f.wants("a delete", f.call("DELETE", boxes+"/"+box, ""), 503, "capacity")
	f.wants("what only reads", f.call("GET", boxes+"/"+box, ""), 200, "")
	if f.paper.runs != 1 {
		t.Errorf("%d programs ran", f.paper.runs)
	}
	b.fill(false)
	f.wants("with room again", f.call("POST", boxes+"/"+box+"/exec", `{"code":"x"}`), 200, "")
}

func TestWithoutThatCallsGoOnAndTheLogSaysWhatIsMissing(t *testing.T) {
	f, b := audited(t, false)
	b.fill(true)
	made := f.call("POST", boxes, `{"language":"python"}`)
	f.wants("a create", made, 201, "")
	f.call("GET", boxes, "") // on the same connection: the line before is there
	f.line(`a call is missing in the audit log" request_id=` + made.header.Get("X-Request-Id") + " action=sandbox.create")
}

// line waits for a line of the log with these words.
func (f *fixture) line(words ...string) string {
	f.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		text := f.logged()
	lines:
		for line := range strings.Lines(text) {
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			return line
		}
		if time.Now().After(end) {
			f.Fatalf("the log has no line with %q:\n%s", words, text)
		}
	}
}

func TestEachAnswerHasOneLineInTheLog(t *testing.T) {
	f := start(t, func(s *settings) { s.perMinute, s.burst = 1, 100 })
	reader, _ := f.key("read", "default")
	box := field[string](t, f.call("POST", boxes, `{"language":"python"}`), "id")
	stateful := field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id")
	exec := boxes + "/" + box + "/exec"
	limited := f.call("POST", "/auth/v1/api_keys", `{"name":"few","namespace":"default","role":"read","rate_limit":1}`)
	few := "API-Key few$" + field[string](t, limited, "secret")
	var spent reply
	for spent.status != http.StatusTooManyRequests {
		spent = f.callAs(t.Context(), few, "GET", boxes, "")
	}
	ran := f.call("POST", exec, `{"code":"x"}`)
	live := f.call("POST", exec, `{"code":"x"}`, "Accept: text/event-stream")
	known := []string{"credential=root", "namespace=default", "sandbox_id=" + box}
	type row struct {
		what  string
		reply reply
		says  []string
	}
	rows := []row{
		{"an exec", ran, append([]string{"status=200", "exec_id=" + field[string](t, ran, "id"), "method=POST", "route=/auth/v1/seed/{namespace}/sandbox/{id}/exec", "duration_ms="}, known...)},
		{"a live one", live, append([]string{"status=200", "exec_id=exec_"}, known...)},
		{"a refused live one", f.call("POST", exec, `{"cod":"x"}`, "Accept: text/event-stream"), append([]string{"status=422", "code=invalid_request"}, known...)},
		{"a bug", f.call("POST", exec, `{"code":"panic"}`), append([]string{"status=500", "code=internal", "level=ERROR"}, known...)},
		{"a bug in a live one", f.call("POST", exec, `{"code":"panic"}`, "Accept: text/event-stream"), append([]string{"status=500", "code=internal", "exec_id=exec_"}, known...)},
		{"no credential", f.callAs(t.Context(), "", "GET", boxes, ""), []string{"status=401", "code=unauthorized", "route=/auth/v1/seed/{namespace}/sandbox "}},
		{"the wrong role", f.callAs(t.Context(), reader, "POST", boxes, "{}"), []string{"status=403", "code=forbidden", "credential=key_"}},
		{"too many calls", spent, []string{"status=429", "code=rate_limited", "credential=key_"}},
		{"no route", f.call("GET", "/nothing", ""), []string{"status=404", "code=not_found", `route=""`}},
		{"no method", f.call("PUT", boxes, ""), []string{"status=405", "code=method_not_allowed"}},
		{"an odd path", f.call("GET", boxes+"/%2e%2e%2fx", ""), []string{"status=404"}},
		{"no handshake", f.call("GET", boxes+"/"+stateful+"/pty", ""), []string{"status=426", "code=upgrade_required", "sandbox_id=" + stateful}},
		{"output", f.call("GET", boxes+"/"+box+"/execs/"+field[string](t, ran, "id")+"/output", ""), append([]string{"status=200"}, known...)},
		{"a page", f.callAs(t.Context(), "", "GET", "/docs", ""), []string{"status=200", "route=/docs"}},
		{"metrics", f.call("GET", "/metrics", ""), []string{"status=200", "route=/metrics"}},
	}
	for _, r := range rows {
		id := "request_id=" + r.reply.header.Get("X-Request-Id") + " "
		line := f.line(append([]string{"msg=call", id}, r.says...)...)
		if len(r.reply.header.Get("X-Request-Id")) != len("req_")+12 {
			t.Errorf("%s: %s", r.what, line)
		}
	}
	status, lines, end := f.listen(ofDefault + "/events")
	if status != 200 || !lines.Scan() {
		t.Fatal(status)
	}
	end()
	f.line("msg=call", "route=/auth/v1/seed/{namespace}/events", "status=200")
	gone, leave := context.WithCancel(t.Context())
	go func() { f.callAs(gone, "Bearer "+rootToken, "POST", exec, `{"code":"wait"}`) }()
	soon(f, "the program runs", f.paper.running)
	leave()
	f.line("msg=call", "client_gone=true", "sandbox_id="+box, "exec_id=exec_")
	for _, r := range rows { // and by now none has a second one
		id := "request_id=" + r.reply.header.Get("X-Request-Id") + " "
		if n := strings.Count(f.logged(), "msg=call "+id); n != 1 {
			t.Errorf("%s has %d lines", r.what, n)
		}
	}
	if strings.Contains(f.logged(), "outcome") {
		t.Error("there is no audit log, and it is spoken of")
	}
}

// TestALiveExecWhoseClientLeftHasItsLine: the program goes on, and what becomes of it is not known when the line is written.
func TestALiveExecWhoseClientLeftHasItsLine(t *testing.T) {
	f, b := audited(t, false)
	box := field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id")
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", f.url+boxes+"/"+box+"/exec", strings.NewReader(`{"code":"wait","on_disconnect":"keep"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+rootToken)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "text/event-stream")
	go func() {
		if a, err := http.DefaultClient.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, bufio.NewReader(a.Body))
			_ = a.Body.Close()
		}
	}()
	soon(f, "the program runs", f.paper.running)
	leave()
	line := f.line("msg=call", "sandbox_id="+box, "exec_id=exec_")
	_, id, _ := strings.Cut(line, "request_id=")
	id, _, _ = strings.Cut(id, " ")
	if e := b.of(t, id, 1)[0]; e.Outcome != audit.Gone || e.Object["exec_id"] == "" {
		t.Errorf("%+v", e)
	}
	f.paper.release <- struct{}{}
	soon(f, "the program's end", f.paper.ended)
}

// Anybody can make calls without a credential, as many as they like: they must not fill the audit log's disk.
func TestCallsOfNobodyFillNoAuditLog(t *testing.T) {
	f, b := audited(t, false)
	for range 200 {
		f.wants("nobody", f.callAs(t.Context(), "Bearer wrong", "POST", boxes, "{}"), 401, "unauthorized")
	}
	made := f.call("POST", boxes, `{"language":"python"}`) // whoever is known is noted, always
	b.of(t, made.header.Get("X-Request-Id"), 1)
	nobodys := func() (n, suppressed int) {
		for _, e := range b.all(t) {
			if e.Credential == nil {
				n, suppressed = n+1, suppressed+e.Suppressed
			}
		}
		return n, suppressed
	}
	before := time.Now()
	for n, told := nobodys(); n+told < 200; n, told = nobodys() { // the next second's line tells of them
		f.callAs(t.Context(), "Bearer wrong", "POST", boxes, "{}")
		if time.Sleep(50 * time.Millisecond); time.Since(before) > 20*time.Second {
			t.Fatalf("%d lines, and %d calls that they tell of", n, told)
		}
	}
	if n, _ := nobodys(); n > 60 {
		t.Errorf("%d lines", n)
	}
}
