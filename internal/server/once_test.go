package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/sandbox"
)

const hello = `{"language":"python"}`

func TestAnIdempotencyKeyGetsTheFirstAnswer(t *testing.T) {
	f := start(t, nil)
	const key = "Idempotency-Key: k"
	first, again := f.call("POST", boxes, hello, key), f.call("POST", boxes, hello, key)
	if first.status != 201 || again.status != 201 || field[string](t, first, "id") != field[string](t, again, "id") {
		t.Errorf("%d %s, %d %s", first.status, first.body, again.status, again.body)
	}
	if first.header.Get("X-Request-Id") == again.header.Get("X-Request-Id") {
		t.Error("both have one request id")
	}
	f.wants("another body", f.call("POST", boxes, `{"language":"bash"}`, key), 422, "idempotency_mismatch")
	f.wants("another route", f.call("POST", boxes+"/execute", `{"language":"python","code":"x"}`, key), 200, "")
	other, _ := f.key("write", "default")
	theirs := f.callAs(t.Context(), other, "POST", boxes, hello, key)
	if field[string](t, theirs, "id") == field[string](t, first, "id") {
		t.Error("another credential got the first one's sandbox")
	}
	for range 2 {
		f.wants("a refusal is kept", f.call("POST", boxes, `{"language":"cobol"}`, "Idempotency-Key: r"), 422, "unsupported_language")
	}
	f.wants("even against a good body", f.call("POST", boxes, hello, "Idempotency-Key: r"), 422, "idempotency_mismatch")
	f.wants("no key", f.call("POST", boxes, hello, "Idempotency-Key: ü"), 422, "invalid_request")
}

func TestSecretsAreNeverRepeated(t *testing.T) {
	f := start(t, nil)
	body := `{"name":"t","expires_in_days":1}`
	one, two := f.call("POST", "/auth/v1/pat", body, "Idempotency-Key: k"), f.call("POST", "/auth/v1/pat", body, "Idempotency-Key: k")
	if field[string](t, one, "token") == field[string](t, two, "token") {
		t.Error("a token was shown twice")
	}
}

func TestACallUnderWayIsJoined(t *testing.T) {
	f := start(t, nil)
	var wg sync.WaitGroup
	replies := make([]reply, 3)
	for i := range replies {
		wg.Go(func() {
			replies[i] = f.call("POST", boxes+"/execute", `{"language":"python","code":"wait"}`, "Idempotency-Key: k")
		})
	}
	soon(f, "the program runs", f.paper.running)
	f.paper.release <- struct{}{}
	wg.Wait()
	for _, r := range replies {
		if r.status != 200 || field[string](t, r, "id") != field[string](t, replies[0], "id") {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if f.paper.runs != 1 {
		t.Errorf("it ran %d times", f.paper.runs)
	}
}

func TestAnswersOutliveTheServer(t *testing.T) {
	before := start(t, nil)
	first := before.call("POST", boxes, `{"language":"python","mode":"stateful"}`, "Idempotency-Key: k")
	id := field[string](t, first, "id")
	done := make(chan reply, 1)
	wait := `{"language":"python","code":"wait"}`
	go func() { done <- before.call("POST", boxes+"/execute", wait, "Idempotency-Key: cut") }()
	soon(before, "the program runs", before.paper.running)
	if err := before.svc.Shutdown(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	before.wants("the exec under way", soon(before, "its answer", done), 503, "lost")
	before.wants("a new call", before.call("GET", boxes, ""), 503, "shutting_down")
	before.wants("readyz", before.call("GET", "/readyz", ""), 503, "shutting_down")

	after := start(t, func(s *settings) { s.file = before.file })
	if got := after.call("POST", boxes, `{"language":"python","mode":"stateful"}`, "Idempotency-Key: k"); field[string](t, got, "id") != id {
		t.Errorf("another sandbox after the restart: %s", got.body)
	}
	after.wants("the repeat of one cut off", after.call("POST", boxes+"/execute", wait, "Idempotency-Key: cut"), 503, "lost")
	after.wants("the sandbox itself", after.call("GET", boxes+"/"+id, ""), 200, "")
}

func TestExecsUnderWayHaveTheDrainTime(t *testing.T) {
	f := start(t, nil)
	done := make(chan reply, 1)
	go func() { done <- f.call("POST", boxes+"/execute", `{"language":"python","code":"wait"}`) }()
	soon(f, "the program runs", f.paper.running)
	stopped := make(chan error, 1)
	go func() { stopped <- f.svc.Shutdown(t.Context(), time.Minute, false) }()
	for deadline := time.Now().Add(20 * time.Second); !f.svc.Draining() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	f.paper.release <- struct{}{}
	f.wants("the exec", soon(f, "its answer", done), 200, "")
	if err := soon(f, "the stop", stopped); err != nil {
		t.Error(err)
	}
}

func TestExecsWaitForTheirTurn(t *testing.T) {
	f := start(t, nil)
	box := boxes + "/" + field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful","max_concurrency":1}`), "id")
	holder, waiter := make(chan reply, 1), make(chan reply, 1)
	go func() { holder <- f.call("POST", box+"/exec", `{"code":"wait"}`) }()
	soon(f, "the program runs", f.paper.running)
	late := f.call("POST", box+"/exec", `{"code":"x","resource_limits":{"timeout_ms":50}}`)
	f.wants("its turn did not come", late, 503, "capacity")
	if late.header.Get("Retry-After") == "" || f.paper.runs != 1 {
		t.Errorf("Retry-After %q, %d runs", late.header.Get("Retry-After"), f.paper.runs)
	}
	go func() { waiter <- f.call("POST", box+"/exec", `{"code":"x"}`) }()
	f.paper.release <- struct{}{}
	f.wants("the first", soon(f, "its answer", holder), 200, "")
	f.wants("the one that waited", soon(f, "its answer", waiter), 200, "")
}

func TestDeletingCancels(t *testing.T) {
	f := start(t, nil)
	box := boxes + "/" + field[string](t, f.call("POST", boxes, `{"language":"python","mode":"stateful"}`), "id")
	done := make(chan reply, 1)
	go func() { done <- f.call("POST", box+"/exec", `{"code":"wait"}`) }()
	soon(f, "the program runs", f.paper.running)
	f.wants("delete", f.call("DELETE", box, ""), 204, "")
	if r := soon(f, "the exec's answer", done); r.status != 200 || field[string](t, r, "termination_reason") != string(sandbox.Cancelled) {
		t.Errorf("the exec: %d %s", r.status, r.body)
	}
	for _, c := range [][3]string{{"DELETE", box}, {"GET", box}, {"POST", box + "/exec", `{"code":"x"}`}} {
		f.wants("afterwards", f.call(c[0], c[1], c[2]), 404, "not_found")
	}
}

func TestQuotas(t *testing.T) {
	f := start(t, func(s *settings) { s.policy.Quota.Sandboxes, s.policy.Quota.ConcurrentExecs = 2, 1 })
	var ids []string
	for range 2 {
		ids = append(ids, field[string](t, f.call("POST", boxes, hello), "id"))
	}
	f.wants("a third sandbox", f.call("POST", boxes, hello), 429, "quota_exceeded")
	f.wants("another namespace's", f.call("POST", strings.Replace(boxes, "default", "other", 1), hello), 201, "")
	f.call("DELETE", boxes+"/"+ids[0], "")
	f.wants("after deleting one", f.call("POST", boxes, hello), 201, "")
	done := make(chan reply, 1)
	run := fmt.Sprintf("%s/%s/exec", boxes, ids[1])
	go func() { done <- f.call("POST", run, `{"code":"wait"}`) }()
	soon(f, "the program runs", f.paper.running)
	f.wants("a second exec", f.call("POST", run, `{"code":"x"}`), 429, "quota_exceeded")
	f.paper.release <- struct{}{}
	f.wants("the first", soon(f, "its answer", done), 200, "")
	f.wants("afterwards", f.call("POST", run, `{"code":"x"}`), 200, "")
}
