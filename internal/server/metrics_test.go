package server_test

import (
	"bytes"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestWhoMayReadMetricsIsTheOperatorsWord(t *testing.T) {
	for word, want := range map[string]struct{ nobody, reader, admin, operator int }{
		"open": {200, 200, 200, 200}, "operator": {401, 403, 403, 200}, "off": {404, 404, 404, 404}, "": {404, 404, 404, 404},
	} {
		f := start(t, func(s *settings) { s.metrics = word })
		reader, _ := f.key("read", "default")
		admin, _ := f.key("admin", "default")
		operator, _ := f.key("operator", "default")
		for auth, status := range map[string]int{"": want.nobody, reader: want.reader, admin: want.admin, operator: want.operator} {
			r := f.callAs(t.Context(), auth, "GET", "/metrics", "")
			if r.status != status {
				t.Errorf("%q by %.9q: %d %.200s, want %d", word, auth, r.status, r.body, status)
			}
			if r.status == http.StatusOK && !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain; version=") {
				t.Errorf("%q: a scraper can't know the form: %v", word, r.header)
			}
		}
		named := bytes.Contains(f.call("GET", "/openapi.json", "").body, []byte(`"/metrics"`))
		if served := want.operator == 200; named != served {
			t.Errorf("%q: served: %v, in the document: %v", word, served, named)
		}
	}
}

func TestMetricsAreThereWhileTheServerStops(t *testing.T) {
	f := start(t, nil)
	if err := f.svc.Shutdown(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	f.wants("a list", f.call("GET", boxes, ""), 503, "shutting_down")
	f.wants("metrics", f.call("GET", "/metrics", ""), 200, "")
	f.wants("metrics for others", f.callAs(t.Context(), "", "GET", "/metrics", ""), 401, "unauthorized")
}

// sees waits until the metrics have every line: a call is counted after its answer has gone out.
func (f *fixture) sees(lines ...string) (text string) {
	f.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		text = string(f.call("GET", "/metrics", "").body)
		lacks := ""
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				lacks = line
			}
		}
		if lacks == "" {
			return text
		}
		if time.Now().After(end) {
			f.Fatalf("lacks %s:\n%s", lacks, text)
		}
	}
}

func TestCallsAreCountedByRouteAndNobodysNamesAreTold(t *testing.T) {
	f := start(t, nil)
	const box = "/auth/v1/seed/{namespace}/sandbox"
	made := f.call("POST", "/auth/v1/seed/acme-corp/sandbox", `{"language":"python","name":"zzq-name","labels":{"zzq-label":"x"}}`)
	id := field[string](t, made, "id")
	f.call("POST", "/auth/v1/seed/acme-corp/sandbox/"+id+"/exec", `{"code":"echo"}`)
	f.call("POST", "/auth/v1/seed/acme-corp/sandbox/execute", `{"language":"bash","code":"echo"}`)
	f.call("POST", "/auth/v1/seed/acme-corp/sandbox/sb_zzq000000000/exec", `{"code":"echo"}`)
	f.call("POST", "/auth/v1/seed/acme-corp/sandbox/execute", `{"language":"zzq-language","code":"echo"}`)
	f.call("POST", "/auth/v1/seed/acme-corp/sandbox/execute", `{"language":"python","code":"panic"}`)
	f.call("ZZQ-METHOD", box, "")
	f.call("GET", "/zzq-path", "")
	text := f.sees(
		`outpost_http_requests_total{method="POST",route="`+box+`",status="2xx"} 1`,
		`outpost_http_requests_total{method="POST",route="`+box+`/{id}/exec",status="2xx"} 1`,
		`outpost_http_requests_total{method="POST",route="`+box+`/{id}/exec",status="4xx"} 1`,
		`outpost_http_request_duration_seconds_count{method="POST",route="`+box+`/{id}/exec"} 2`,
		`outpost_http_errors_total{code="not_found",method="POST",route="`+box+`/{id}/exec"} 1`,
		`outpost_http_errors_total{code="internal",method="POST",route="`+box+`/execute"} 1`,
		`outpost_http_errors_total{code="unsupported_language",method="POST",route="`+box+`/execute"} 1`,
		`outpost_http_errors_total{code="method_not_allowed",method="other",route="none"} 1`,
		`outpost_http_errors_total{code="not_found",method="GET",route="none"} 1`,
		`outpost_http_requests_in_flight 1`, // the scrape itself
		`outpost_execs_total{engine="none",language="python",start="cold",termination_reason="exited"} 1`,
		`outpost_execs_total{engine="none",language="bash",start="cold",termination_reason="exited"} 1`,
		`outpost_sandboxes{mode="ephemeral",status="running"} 1`,
		`outpost_execs_in_flight 0`,
	)
	if theirs := regexp.MustCompile(`(?i)acme|zzq|` + id).FindString(text); theirs != "" {
		t.Errorf("%q is told", theirs)
	}
	f.wants("delete", f.call("DELETE", "/auth/v1/seed/acme-corp/sandbox/"+id, ""), 204, "")
	f.sees(`outpost_sandboxes{mode="ephemeral",status="running"} 0`)
}

func TestAStreamThatItsClientEndsIsNoError(t *testing.T) {
	f := start(t, nil)
	status, _, end := f.listen(ofDefault + "/events")
	if status != 200 {
		t.Fatal(status)
	}
	f.sees(`outpost_http_requests_in_flight 2`)
	end()
	if text := f.sees(`outpost_http_requests_in_flight 1`); strings.Contains(text, "outpost_http_errors_total{") {
		t.Errorf("an error is counted:\n%s", text)
	}
}
