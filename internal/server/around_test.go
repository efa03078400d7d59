package server_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

const ofDefault = "/auth/v1/seed/default"

func TestTheNewRoutesAskForTheirRoleAndNamespace(t *testing.T) {
	f := start(t, nil)
	box := boxes + "/" + field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id")
	reader, _ := f.key("read", "default")
	writer, _ := f.key("write", "default")
	stranger, _ := f.key("write", "beta")
	for _, c := range []struct {
		method, path, body      string
		read, write, strangerIs int
	}{
		{"PATCH", box, `{"name":"n"}`, 403, 200, 403},
		{"POST", box + "/stop", "", 403, 200, 403},
		{"POST", box + "/start", "", 403, 200, 403},
		{"GET", ofDefault + "/usage", "", 200, 200, 403},
		{"GET", ofDefault + "/languages", "", 200, 200, 403},
		{"GET", ofDefault + "/images", "", 200, 200, 403},
		{"GET", "/auth/v1/whoami", "", 200, 200, 200},
		{"GET", box + "/events?since=x", "", 422, 422, 403},
		{"GET", ofDefault + "/events?sinse=1", "", 422, 422, 403},
	} {
		for auth, want := range map[string]int{reader: c.read, writer: c.write, stranger: c.strangerIs} {
			if got := f.callAs(t.Context(), auth, c.method, c.path, c.body); got.status != want {
				t.Errorf("%s %s: %d %s, want %d", c.method, c.path, got.status, got.body, want)
			}
		}
	}
	mine := strings.Replace(box, "/default/", "/beta/", 1)
	for _, c := range [][2]string{{"PATCH", mine}, {"POST", mine + "/stop"}, {"POST", mine + "/start"}, {"GET", mine + "/events"}} {
		f.wants(c[0]+" of another's", f.callAs(t.Context(), stranger, c[0], c[1], "{}"), 404, "not_found")
	}
	f.wants("stop of an ephemeral one", f.call("POST", boxes+"/"+field[string](t, f.call("POST", boxes, `{"language":"python"}`), "id")+"/stop", ""), 409, "not_stateful")
	f.wants("PATCH of an unknown field", f.call("PATCH", box, `{"nam":"x"}`), 422, "invalid_request")
	f.wants("PATCH of a bad label", f.call("PATCH", box, `{"labels":{"":"x"}}`), 422, "invalid_request")
}

// listen opens a stream and gives its lines; it ends with the test.
func (f *fixture) listen(path string) (status int, lines *bufio.Scanner, end func()) {
	f.Helper()
	ctx, cancel := context.WithCancel(f.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", f.url+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+rootToken)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	end = func() { cancel(); _, _ = io.Copy(io.Discard, a.Body); _ = a.Body.Close() }
	f.Cleanup(end)
	return a.StatusCode, bufio.NewScanner(a.Body), end
}

func TestAStreamLivesAndTellsWhatHappens(t *testing.T) {
	f := start(t, nil)
	status, lines, _ := f.listen(ofDefault + "/events")
	if status != 200 || !lines.Scan() || lines.Text() != ": alive" {
		t.Fatalf("%d, %q", status, lines.Text())
	}
	id := field[string](t, f.call("POST", boxes, `{"language":"python"}`), "id")
	for lines.Scan() {
		if data, is := strings.CutPrefix(lines.Text(), "data: "); is {
			if !strings.Contains(data, `"sandbox_id":"`+id+`","type":"running"`) {
				t.Errorf("told %s", data)
			}
			return
		}
	}
	t.Error("the stream ended")
}

func TestACredentialHasSoManyStreamsAndNoMore(t *testing.T) {
	f := start(t, nil)
	var ends []func()
	for range 64 {
		status, _, end := f.listen(ofDefault + "/events")
		if status != 200 {
			t.Fatal(status)
		}
		ends = append(ends, end)
	}
	if status, _, _ := f.listen(ofDefault + "/events"); status != 429 {
		t.Errorf("the 65th: %d", status)
	}
	other, _ := f.key("read", "default")
	f.wants("another credential's", f.callAs(t.Context(), other, "GET", ofDefault+"/events?since=-1", ""), 422, "invalid_request")
	ends[0]()
	for status := 0; status != 200; { // the server sees the end a moment later
		status, _, _ = f.listen(ofDefault + "/events")
	}
}
