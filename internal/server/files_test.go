package server_test

import (
	"strings"
	"testing"
)

func TestHeadOfAFileIsGetWithoutTheFile(t *testing.T) {
	f := start(t, nil)
	at := boxes + "/" + field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id") + "/files?path="
	get, head := f.call("GET", at+"there", ""), f.call("HEAD", at+"there", "")
	if head.status != 200 || len(head.body) != 0 || head.header.Get("Content-Length") != "13" {
		t.Errorf("%d %v %q", head.status, head.header, head.body)
	}
	for _, name := range []string{"Content-Type", "Content-Length", "X-File-Mode", "Last-Modified", "Accept-Ranges"} {
		if head.header.Get(name) != get.header.Get(name) || get.header.Get(name) == "" {
			t.Errorf("%s: %q, and GET has %q", name, head.header.Get(name), get.header.Get(name))
		}
	}
	for path, want := range map[string]int{"nowhere": 404, "": 422} {
		if r := f.call("HEAD", at+path, ""); r.status != want || len(r.body) != 0 {
			t.Errorf("%q: %d %q, want %d", path, r.status, r.body, want)
		}
	}
	if r := f.callAs(t.Context(), "Bearer wrong", "HEAD", at+"there", ""); r.status != 401 {
		t.Errorf("without a credential: %d", r.status)
	}
}

func TestAGzippedArchiveIsNamed(t *testing.T) {
	f := start(t, nil)
	at := boxes + "/" + field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id") + "/files/archive?path=."
	r := f.call("PUT", at, "\x1f\x8b\x08\x00 and so on", "Content-Type: application/x-tar")
	f.wants("gzip", r, 422, "invalid_request")
	if !strings.Contains(string(r.body), "gzip -d") {
		t.Errorf("%s", r.body)
	}
	for _, plain := range []string{"", "\x1f", strings.Repeat("\x00", 1024)} {
		f.wants("another body", f.call("PUT", at, plain, "Content-Type: application/x-tar"), 204, "")
	}
}

func TestWhatOtherListsCallAParameterIsKnown(t *testing.T) {
	f := start(t, nil)
	for said, want := range map[string]string{"limit=5": "per_page", "page_size=5": "per_page", "pag=1": "page?", "sort_by=id": "sort?"} {
		r := f.call("GET", boxes+"?"+said, "")
		f.wants(said, r, 422, "invalid_request")
		if !strings.Contains(string(r.body), "did you mean "+want) {
			t.Errorf("%s: %s", said, r.body)
		}
	}
	if r := f.call("GET", boxes+"?offset=5", ""); strings.Contains(string(r.body), "did you mean") {
		t.Errorf("a guess: %s", r.body)
	}
}
