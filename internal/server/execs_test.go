package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/internal/server"
	"outpost.run/outpost/internal/spool"
)

func TestAStreamTellsStartOutputAndExit(t *testing.T) {
	f := start(t, nil)
	id := field[string](t, f.call("POST", boxes, `{"language":"python"}`), "id")
	r := f.call("POST", boxes+"/"+id+"/exec", `{"code":"echo ü"}`, "Accept: text/event-stream")
	text := string(r.body)
	for _, want := range []string{"event: start\ndata: {\"id\":\"exec_", "event: stdout\ndata: {\"offset\":0,\"text\":\"echo ü\"}\n\n", "event: exit\ndata: {", `"exit_code":0`} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, `"stdout":"`) || r.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v\n%s", r.header, text)
	}
	f.wants("what is refused", f.call("POST", boxes+"/"+id+"/exec", `{"code":1}`, "Accept: text/event-stream"), 422, "invalid_request")
	if r := f.call("POST", boxes+"/"+id+"/exec", `{"code":"panic"}`, "Accept: text/event-stream"); r.status != http.StatusInternalServerError {
		t.Errorf("a bug: %d %s", r.status, r.body)
	}
}

func TestABackgroundExecIsAnsweredOnceAlsoToWhoWantsEvents(t *testing.T) {
	f := start(t, nil)
	id := field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id")
	for _, code := range []string{"echo", "panic"} {
		r := f.call("POST", boxes+"/"+id+"/exec", `{"code":"`+code+`","background":true}`, "Accept: text/event-stream")
		if code == "echo" && r.status != http.StatusCreated || code == "panic" && r.status != http.StatusInternalServerError {
			t.Errorf("%s: %d %s", code, r.status, r.body)
		}
	}
	if r := f.call("GET", boxes+"/"+id+"/execs", ""); !strings.Contains(string(r.body), `"background":true`) {
		t.Errorf("%s", r.body)
	}
}

func TestATicketOpensOneTerminalOnce(t *testing.T) {
	f := start(t, nil)
	id := field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id")
	other := field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id")
	ticket := field[string](t, f.call("POST", boxes+"/"+id+"/pty/ticket", ""), "ticket")
	f.wants("of another sandbox", f.callAs(t.Context(), "", "GET", boxes+"/"+other+"/pty?ticket="+ticket, ""), 401, "unauthorized")
	f.wants("after that", f.callAs(t.Context(), "", "GET", boxes+"/"+id+"/pty?ticket="+ticket, ""), 401, "unauthorized")
	ticket = field[string](t, f.call("POST", boxes+"/"+id+"/pty/ticket", ""), "ticket")
	f.wants("for another call", f.callAs(t.Context(), "", "GET", boxes+"/"+id+"/files/list?path=.&ticket="+ticket, ""), 401, "unauthorized")
	r := f.callAs(t.Context(), "", "GET", boxes+"/"+id+"/pty?ticket="+ticket, "")
	f.wants("a good one without a WebSocket", r, 426, "upgrade_required")
	if r.header.Get("Upgrade") != "websocket" || !strings.Contains(string(r.body), "outpost shell") {
		t.Errorf("%v %s", r.header, r.body)
	}
}

// onWrite is an answer that does something with each piece before it is taken.
type onWrite struct {
	*httptest.ResponseRecorder
	do func()
}

func (w onWrite) Write(b []byte) (int, error) {
	w.do()
	return w.ResponseRecorder.Write(b)
}

func TestFollowingEndsWhereTheLogIsDropped(t *testing.T) {
	s, err := spool.Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	log := s.New("x", 1<<20)
	_, _ = log.Write([]byte("said"))
	w := onWrite{httptest.NewRecorder(), log.Drop}
	ended := make(chan error)
	go func() { ended <- server.Follow(t.Context(), w, log) }()
	select {
	case err := <-ended:
		if err != nil || !strings.Contains(w.Body.String(), "said") {
			t.Errorf("%v %q", err, w.Body)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on without end")
	}
}

func TestNothingIsWrittenToAnAnswerThatIsOver(t *testing.T) {
	began, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	end := server.Live(t.Context(), onWrite{httptest.NewRecorder(), func() { close(began); <-goOn }})
	<-began
	go func() { end(); close(ended) }()
	select {
	case <-ended:
		t.Error("the handler may return while a heartbeat is written")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	<-ended
}

func TestAHandshakeThatIsNoneIsAnErrorOfOurs(t *testing.T) {
	f := start(t, nil)
	at := boxes + "/" + field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id") + "/pty"
	upgrade := []string{"Connection: keep-alive, Upgrade", "Upgrade: websocket"}
	for what, headers := range map[string][]string{
		"no version":     append(upgrade[:2:2], "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
		"an old version": append(upgrade[:2:2], "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 8"),
		"a short key":    append(upgrade[:2:2], "Sec-WebSocket-Key: AAAA", "Sec-WebSocket-Version: 13"),
	} {
		f.wants(what, f.call("GET", at, "", headers...), 422, "invalid_request")
	}
	f.wants("another protocol", f.call("GET", at, "", "Connection: Upgrade", "Upgrade: h2c"), 426, "upgrade_required")
}
