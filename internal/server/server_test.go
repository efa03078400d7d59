package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"outpost.run/outpost/internal/server"
	"outpost.run/outpost/sandbox"
)

func TestEveryAnswerHasARequestID(t *testing.T) {
	f := start(t, nil)
	form := regexp.MustCompile(`^req_[0-9a-f]{12}$`)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/healthz", "", 200, ""}, {"GET", "/nothing", "", 404, "not_found"}, {"PUT", boxes, "", 405, "method_not_allowed"},
		{"BREW", boxes, "", 405, "method_not_allowed"}, {"POST", boxes, "{", 400, "malformed_json"}, {"POST", boxes, "{}", 422, "invalid_request"},
		{"GET", boxes + "/sb_000000000000", "", 404, "not_found"}, {"GET", boxes + "/%2e%2e%2fetc", "", 404, "not_found"},
		{"GET", "/auth/v1/seed/Acme/sandbox", "", 422, "invalid_request"}, {"GET", boxes + "?pag=1", "", 422, "invalid_request"},
		{"POST", boxes + "/execute", `{"language":"python","code":"panic"}`, 500, "internal"},
	} {
		r := f.call(c.method, c.path, c.body)
		f.wants(c.method+" "+c.path, r, c.status, c.code)
		id := r.header.Get("X-Request-Id")
		if !form.MatchString(id) || r.status >= 400 && !bytes.Contains(r.body, []byte(id)) {
			t.Errorf("%s %s: request id %q, body %s", c.method, c.path, id, r.body)
		}
	}
	if allow := f.call("PUT", boxes, "").header.Get("Allow"); allow != "GET, POST" {
		t.Errorf("Allow: %q", allow)
	}
}

func TestRolesAndNamespaces(t *testing.T) {
	f := start(t, nil)
	mine := f.call("POST", boxes, `{"language":"python"}`)
	box := boxes + "/" + field[string](t, mine, "id")
	create := `{"language":"python"}`
	for _, c := range []struct {
		role, namespace string
		want            [5]int // list, get, create, delete of none, list of keys
	}{
		{"read", "default", [5]int{200, 200, 403, 403, 403}},
		{"write", "default", [5]int{200, 200, 201, 404, 403}},
		{"admin", "default", [5]int{200, 200, 201, 404, 200}},
		{"operator", "elsewhere", [5]int{200, 200, 201, 404, 200}},
		{"admin", "elsewhere", [5]int{403, 403, 403, 403, 200}},
	} {
		auth, _ := f.key(c.role, c.namespace)
		got := [5]int{}
		for i, call := range [5][3]string{{"GET", boxes}, {"GET", box}, {"POST", boxes, create}, {"DELETE", boxes + "/sb_000000000000"}, {"GET", "/auth/v1/api_keys"}} {
			got[i] = f.callAs(t.Context(), auth, call[0], call[1], call[2]).status
		}
		if got != c.want {
			t.Errorf("%s of %s: %v, want %v", c.role, c.namespace, got, c.want)
		}
	}
	for _, auth := range []string{"", "Bearer ", "Bearer x", "Basic eDp4", rootToken, "API-Key k", "API-Key " + rootToken, "Bearer " + rootToken + "x"} {
		f.wants("credential "+auth, f.callAs(t.Context(), auth, "GET", box, ""), 401, "unauthorized")
	}
}

func TestAnothersObjectIsAsIfItNeverWas(t *testing.T) {
	f := start(t, nil)
	theirs := field[string](t, f.call("POST", boxes, `{"language":"python"}`), "id")
	auth, _ := f.key("write", "beta")
	ids := regexp.MustCompile(`(sb|req)_[0-9a-f]{12}`)
	for _, method := range []string{"GET", "DELETE"} {
		var bodies []string
		for _, id := range []string{theirs, "sb_000000000000"} {
			r := f.callAs(t.Context(), auth, method, "/auth/v1/seed/beta/sandbox/"+id, "")
			f.wants(method, r, 404, "not_found")
			bodies = append(bodies, ids.ReplaceAllString(string(r.body), "ID"))
		}
		if bodies[0] != bodies[1] {
			t.Errorf("%s tells them apart: %s %s", method, bodies[0], bodies[1])
		}
	}
}

func TestATokenIsNoMoreThanItsMaker(t *testing.T) {
	f := start(t, nil)
	maker, id := f.key("write", "alpha")
	r := f.callAs(t.Context(), maker, "POST", "/auth/v1/pat", `{"name":"t","expires_in_days":1}`)
	token := "Bearer " + field[string](t, r, "token")
	f.wants("its namespace", f.callAs(t.Context(), token, "GET", "/auth/v1/seed/alpha/sandbox", ""), 200, "")
	f.wants("another", f.callAs(t.Context(), token, "GET", boxes, ""), 403, "forbidden")
	f.wants("a key", f.callAs(t.Context(), token, "POST", "/auth/v1/api_keys", `{"name":"k","namespace":"alpha","role":"read"}`), 403, "forbidden")
	f.wants("a longer one", f.callAs(t.Context(), token, "POST", "/auth/v1/pat", `{"name":"t","expires_in_days":2}`), 422, "invalid_request")
	child := "Bearer " + field[string](t, f.callAs(t.Context(), token, "POST", "/auth/v1/pat", `{"name":"t","expires_in_days":0.5}`), "token")
	if list := f.callAs(t.Context(), maker, "GET", "/auth/v1/pat", ""); bytes.Contains(list.body, []byte(token[7:])) {
		t.Error("the list shows a token")
	}
	f.wants("delete the maker", f.call("DELETE", "/auth/v1/api_keys/"+id, ""), 204, "")
	for _, auth := range []string{maker, token, child} {
		f.wants("after its maker's end", f.callAs(t.Context(), auth, "GET", "/auth/v1/seed/alpha/sandbox", ""), 401, "unauthorized")
	}
}

func TestValuesOfEnvAreShownOnce(t *testing.T) {
	f := start(t, nil)
	r := f.call("POST", boxes, `{"language":"python","env":[["A","S3cret"]]}`)
	if !bytes.Contains(r.body, []byte("S3cret")) {
		t.Errorf("not in the create's answer: %s", r.body)
	}
	for _, path := range []string{boxes, boxes + "/" + field[string](t, r, "id")} {
		if later := f.call("GET", path, ""); bytes.Contains(later.body, []byte("S3cret")) || !bytes.Contains(later.body, []byte(`["A","redacted"]`)) {
			t.Errorf("%s: %s", path, later.body)
		}
	}
	if strings.Contains(f.logged(), "S3cret") || strings.Contains(f.logged(), rootToken) {
		t.Error("a secret is in the log")
	}
}

func TestRateLimit(t *testing.T) {
	f := start(t, func(s *settings) { s.perMinute, s.burst = 1, 3 })
	var last reply
	for i := range 4 {
		last = f.call("GET", boxes, "")
		if want := 200 + i/3*229; last.status != want || last.header.Get("X-RateLimit-Limit") != "1" {
			t.Errorf("call %d: %d, %v", i, last.status, last.header)
		}
	}
	f.wants("over the burst", last, 429, "rate_limited")
	if wait, err := strconv.Atoi(last.header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 || last.header.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("headers: %v", last.header)
	}
	if off := start(t, nil).call("GET", boxes, ""); off.header.Get("X-RateLimit-Limit") != "" {
		t.Errorf("headers where limits are off: %v", off.header)
	}
}

func TestBodies(t *testing.T) {
	f := start(t, nil)
	for kind, want := range map[string]int{"text/plain": 415, "": 415, "application/json; charset=utf-8": 422, "Application/JSON": 422} {
		if r := f.call("POST", boxes, "{}", "Content-Type: "+kind); r.status != want {
			t.Errorf("%q: %d, want %d", kind, r.status, want)
		}
	}
	f.wants("over 8 MiB", f.call("POST", boxes+"/execute", `{"language":"python","code":"`+strings.Repeat("x", 8<<20)+`"}`), 413, "body_too_large")
	r := f.call("POST", boxes+"/execute", `{"language":"python","code":"`+strings.Repeat("x", 7<<20)+`"}`)
	if r.status != 200 || !field[bool](t, r, "stdout_truncated") || len(field[string](t, r, "stdout")) != 1<<20 {
		t.Errorf("7 MiB: %d %.300s", r.status, r.body)
	}
}

func TestFiveFaultsAreListedAtOnce(t *testing.T) {
	f := start(t, nil)
	r := f.call("POST", boxes, `{"mode":"x","env":[["A","1"],["B"]],"resource_limits":{"memory_mb":1},"secrity":{},"working_dir":"x"}`)
	f.wants("five faults", r, 422, "invalid_request")
	var e sandbox.ErrorAnswer
	if err := json.Unmarshal(r.body, &e); err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	for _, d := range e.Error.Details {
		fields[d.Field] = true
	}
	for _, want := range []string{"language", "mode", "env[1]", "resource_limits.memory_mb", "secrity", "working_dir"} {
		if !fields[want] {
			t.Errorf("lacks %s: %s", want, r.body)
		}
	}
}

// TestEveryCodeHasAStatus reads the codes from their source, so that a new one can't be forgotten.
func TestEveryCodeHasAStatus(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../sandbox/error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, is := node.(*ast.ValueSpec)
		if !is || len(spec.Values) != 1 {
			return true
		}
		if id, is := spec.Type.(*ast.Ident); is && id.Name == "Code" {
			n++
			code := strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)
			if status := server.StatusOf(sandbox.Code(code)); status < 400 {
				t.Errorf("%s has no status", code)
			}
		}
		return true
	})
	if n < 20 {
		t.Errorf("found %d codes only", n)
	}
}

func TestTheDocumentNamesEveryRouteAndLoadsNothing(t *testing.T) {
	f := start(t, nil)
	doc := f.callAs(t.Context(), "", "GET", "/openapi.json", "")
	var api struct {
		OpenAPI string
		Paths   map[string]map[string]any
	}
	if err := json.Unmarshal(doc.body, &api); err != nil || !strings.HasPrefix(api.OpenAPI, "3.1") {
		t.Fatalf("%v %.100s", err, doc.body)
	}
	for _, want := range []string{"post " + "/auth/v1/seed/{namespace}/sandbox/{id}/exec", "delete /auth/v1/pat/{id}", "get /readyz"} {
		method, path, _ := strings.Cut(want, " ")
		if api.Paths[path][method] == nil {
			t.Errorf("lacks %s", want)
		}
	}
	page := f.callAs(t.Context(), "", "GET", "/docs", "")
	if page.status != 200 || regexp.MustCompile(`(?i)<script|<link|src=|https?://`).Match(page.body) {
		t.Errorf("docs: %d, or it loads something", page.status)
	}
}

func TestAPanicEndsOneCallOnly(t *testing.T) {
	f := start(t, nil)
	f.wants("a panic", f.call("POST", boxes+"/execute", `{"language":"python","code":"panic"}`), 500, "internal")
	if r := f.call("POST", boxes+"/execute", `{"language":"python","code":"on"}`); field[string](t, r, "stdout") != "on" {
		t.Errorf("afterwards: %d %s", r.status, r.body)
	}
}

func TestAClientThatGoesAwayEndsItsProgram(t *testing.T) {
	f := start(t, nil)
	for _, c := range []struct {
		name, body string
		headers    []string
		dies       bool
	}{
		{"kill is the default", `{"language":"python","code":"wait"}`, nil, true},
		{"keep, asked for", `{"language":"python","code":"wait","on_disconnect":"keep"}`, nil, false},
		{"keep is the default with a key", `{"language":"python","code":"wait"}`, []string{"Idempotency-Key: a"}, false},
		{"kill wins over the key", `{"language":"python","code":"wait","on_disconnect":"kill"}`, []string{"Idempotency-Key: b"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, hangUp := context.WithCancel(t.Context())
			gone := make(chan reply, 1)
			go func() { gone <- f.callAs(ctx, "Bearer "+rootToken, "POST", boxes+"/execute", c.body, c.headers...) }()
			soon(f, "the program runs", f.paper.running)
			hangUp()
			soon(f, "the client is gone", gone)
			if c.dies {
				if why := soon(f, "the program ends", f.paper.ended); why != sandbox.Cancelled {
					t.Errorf("it ended as %s", why)
				}
				return
			}
			f.paper.release <- struct{}{}
			if why := soon(f, "the program ends", f.paper.ended); why != sandbox.Exited {
				t.Errorf("it ended as %s", why)
			}
		})
	}
}

func TestPages(t *testing.T) {
	f := start(t, nil)
	for i := range 5 {
		f.call("POST", boxes, fmt.Sprintf(`{"language":"python","name":"n%d","labels":{"i":"%d"}}`, i, i%2))
	}
	for query, want := range map[string]string{
		"?page=2&per_page=2&order=asc": "n2 n3 2 2 5 3", "?order=desc&per_page=1": "n4 1 1 5 5", "?label=i:1&order=asc": "n1 n3 1 20 2 1", "?mode=stateful": "1 20 0 0",
	} {
		var p sandbox.Page[sandbox.Sandbox]
		if err := json.Unmarshal(f.call("GET", boxes+query, "").body, &p); err != nil {
			t.Fatal(err)
		}
		words := []string{}
		for _, s := range p.Data {
			words = append(words, s.Name)
		}
		words = append(words, fmt.Sprint(p.Pagination.Page), fmt.Sprint(p.Pagination.PerPage), fmt.Sprint(p.Pagination.Total), fmt.Sprint(p.Pagination.TotalPages))
		if got := strings.Join(words, " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for _, query := range []string{"page=0", "page=x", "per_page=101", "per_page=1e3", "order=up", "sort=secret", "status=x", "mode=x", "label=x", "page=" + strings.Repeat("9", 30), "page=1&page=2", "owner=x", "%zz"} {
		f.wants(query, f.call("GET", boxes+"?"+query, ""), http.StatusUnprocessableEntity, "invalid_request")
	}
}
