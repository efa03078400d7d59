package e2e_test

import (
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"outpost.run/outpost/sandbox"
)

// collector takes traces by OTLP over HTTP.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*tracepb.Span
	resource map[string]string
	wrong    []string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{resource: map[string]string{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(func() {
		c.Close()
		if len(c.wrong) > 0 {
			t.Errorf("what came to the collector: %v", c.wrong)
		}
	})
	return c
}

// ServeHTTP implements http.Handler.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var data tracepb.TracesData
	if err == nil {
		err = proto.Unmarshal(body, &data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Authorization") != "Bearer of-the-collector" {
		c.wrong = append(c.wrong, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type"))
	}
	for _, of := range data.ResourceSpans {
		for _, a := range of.Resource.Attributes {
			c.resource[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range of.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// trace waits until the trace of that id has spans of all these names.
func (c *collector) trace(t *testing.T, id string, names ...string) (all []*tracepb.Span) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		all = nil
		var has []string
		for _, s := range c.spans {
			if hex.EncodeToString(s.TraceId) == id {
				all, has = append(all, s), append(has, s.Name)
			}
		}
		c.mu.Unlock()
		if !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(has, name) }) {
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("the trace has %q, want %q", has, names)
		}
	}
}

func attributes(s *tracepb.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[a.Key] = a.Value.GetStringValue()
		if n := a.Value.GetIntValue(); n != 0 {
			all[a.Key] = http.StatusText(int(n))
		}
	}
	return all
}

const (
	someTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	otherTrace = "5bf92f3577b34da6a3ce929d0e0e4736"
	quietTrace = "6bf92f3577b34da6a3ce929d0e0e4736"
	jobTrace   = "7bf92f3577b34da6a3ce929d0e0e4736"
	parentSpan = "00f067aa0ba902b7"
)

// under makes a call as a part of a trace.
func (s *server) under(t *testing.T, traceparent, method, path, body string) http.Header {
	t.Helper()
	headers := http.Header{"Content-Type": {"application/json"}, "Traceparent": {traceparent}}
	a := s.ask(t, method, "/auth/v1/seed/default/sandbox"+path, headers, body)
	defer a.Body.Close()
	if _, err := io.ReadAll(a.Body); err != nil {
		t.Error(err)
	}
	return a.Header
}

func TestEachPhaseOfACallIsASpanOfItsTrace(t *testing.T) {
	c := newCollector(t)
	s := newServer(t, "--tracing-endpoint", c.URL, "--tracing-headers", "{Authorization: Bearer of-the-collector}", "--pool-max-idle", "0")
	leakCheck(t, s)
	box := s.box(t, sandbox.CreateRequest{MaxConcurrency: new(1)})
	s.under(t, "00-"+quietTrace+"-"+parentSpan+"-00", "POST", "/"+box.ID+"/exec", `{"code": "print(1)"}`) // takes the machine that was made with it
	head := s.under(t, "00-"+someTrace+"-"+parentSpan+"-01", "POST", "/"+box.ID+"/exec", `{"code": "print('S3cret')", "env": [["WORD", "S3cret"]]}`)
	const name = "POST /auth/v1/seed/{namespace}/sandbox/{id}/exec"
	phases := []string{"queue", "lease", "make", "park", "send", "run", "collect", "delete"}
	all := c.trace(t, someTrace, append(phases, name)...)
	byName := map[string]*tracepb.Span{}
	for _, span := range all {
		if byName[span.Name] != nil {
			t.Errorf("there are two of %s", span.Name)
		}
		byName[span.Name] = span
		if strings.Contains(span.String(), "S3cret") {
			t.Errorf("a client's words are in a span: %v", span)
		}
	}
	root := byName[name]
	got := attributes(root)
	for key, want := range map[string]string{
		"http.request.method": "POST", "http.route": "/auth/v1/seed/{namespace}/sandbox/{id}/exec", "http.response.status_code": "OK",
		"outpost.request_id": head.Get("X-Request-Id"), "outpost.namespace": "default", "outpost.sandbox_id": box.ID, "outpost.credential": "root",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if root.Kind != tracepb.Span_SPAN_KIND_SERVER || hex.EncodeToString(root.ParentSpanId) != parentSpan || !strings.HasPrefix(got["outpost.exec_id"], "exec_") {
		t.Errorf("the call's span: %v", root)
	}
	before := root.StartTimeUnixNano
	for _, phase := range phases {
		span := byName[phase]
		if string(span.ParentSpanId) != string(root.SpanId) {
			t.Errorf("%s is no part of the call: %v", phase, span)
		}
		if span.StartTimeUnixNano < before || span.EndTimeUnixNano < span.StartTimeUnixNano || phase != "delete" && span.EndTimeUnixNano > root.EndTimeUnixNano {
			t.Errorf("%s is out of its order: %v", phase, span)
		}
		before = span.StartTimeUnixNano
	}
	if attributes(byName["make"])["outpost.engine"] != "container" || attributes(byName["lease"])["outpost.pool"] != "miss" {
		t.Errorf("%v, %v", byName["make"], byName["lease"])
	}
	s.under(t, "00-"+otherTrace+"-"+parentSpan+"-01", "POST", "/execute", `{"language": "python", "code": "raise SystemExit(3)"}`)
	c.trace(t, otherTrace, "POST /auth/v1/seed/{namespace}/sandbox/execute", "image", "make", "park", "run", "collect", "delete")
	s.attempt(t, c)
	if c.resource["service.name"] != "outpost" || c.resource["host.name"] == "" {
		t.Errorf("they are of %v", c.resource)
	}
	if quiet := c.trace(t, quietTrace); len(quiet) > 0 {
		t.Errorf("a client that wants no trace has %d spans", len(quiet))
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(s.lastWords(), "trace_id="+someTrace); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log does not name the trace:\n%s", s.lastWords())
		}
	}
}

// attempt runs a job: its attempt is a trace of its own, since no call waits for it.
func (s *server) attempt(t *testing.T, c *collector) {
	t.Helper()
	s.under(t, "00-"+jobTrace+"-"+parentSpan+"-01", "POST", "/jobs", `{"language": "python", "code": "print(1)"}`)
	submit := attributes(c.trace(t, jobTrace, "POST /auth/v1/seed/{namespace}/sandbox/jobs")[0])["outpost.job_id"]
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		for _, span := range c.spans {
			if span.Name == "job attempt" && len(span.ParentSpanId) == 0 && attributes(span)["outpost.job_id"] == submit && submit != "" {
				c.mu.Unlock()
				c.trace(t, hex.EncodeToString(span.TraceId), "job attempt", "make", "run", "delete")
				return
			}
		}
		c.mu.Unlock()
		if time.Now().After(end) {
			t.Fatalf("no span of an attempt at %q", submit)
		}
	}
}

// TestADeadCollectorHoldsNothingUp: one takes no connection, one takes it and never answers. newServer sees that both servers stop well.
func TestADeadCollectorHoldsNothingUp(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses.Close()
	for what, at := range map[string]string{"hangs": hangs.Addr().String(), "refuses": refuses.Addr().String()} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t, "--tracing-endpoint", "http://"+at)
			leakCheck(t, s)
			box := s.box(t, sandbox.CreateRequest{})
			for range 20 {
				if result := s.python(t, box.ID, "print(1)"); clean(t, result) != "1" {
					t.Errorf("%+v", result)
				}
			}
			now := s.measured(t)
			if now["outpost_trace_spans_total"] < 100 || now["outpost_trace_spans_sent_total"] != 0 {
				t.Errorf("%v spans, %v of them sent", now["outpost_trace_spans_total"], now["outpost_trace_spans_sent_total"])
			}
		})
	}
}
