// Package storetest is the suite that every store of the service passes.
package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Run runs the suite. open makes an empty store; reopen closes one and opens what it kept.
func Run(t *testing.T, open func(*testing.T) service.Store, reopen func(*testing.T, service.Store) service.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, service.Store, func(*testing.T, service.Store) service.Store)
	}{
		{"sandboxes outlive the store", sandboxesOutlive},
		{"a list is filtered, sorted and paged", listed},
		{"a put replaces", replaced},
		{"credentials outlive the store", credentialsOutlive},
		{"a credential goes with the tokens made with it", cascade},
		{"a call is begun once", begunOnce},
		{"the answer of a call outlives the store", answerOutlives},
		{"old calls expire", callsExpire},
		{"the time of calls is their own", callsTime},
		{"execs in the background outlive the store", execsOutlive},
		{"moments and the clock outlive the store", clockOutlives},
		{"events keep their order over a restart, and are used once", eventsInOrder},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t), reopen) })
	}
}

func record(i int) sandbox.Sandbox {
	return sandbox.Sandbox{
		ID: fmt.Sprintf("sb_%012d", i), Namespace: "default", Name: fmt.Sprint("n", i), Language: "python", Mode: sandbox.Stateful,
		Status: sandbox.Running, Env: [][2]string{{"SECRET", "value"}}, Labels: map[string]string{"i": fmt.Sprint(i % 2), "a.b\"c": "x"},
		ResourceLimits: sandbox.Limits{MemoryMB: 16, CPUCores: 0.5}, Ports: []sandbox.Port{}, Network: sandbox.Network{Egress: "none", Allow: []string{}},
		Isolation: sandbox.Isolation{Engine: "container", Effective: []string{"seccomp"}, Missing: []string{}},
		CreatedAt: sandbox.At(time.Unix(1_700_000_000, 0)), UpdatedAt: sandbox.Now(), // the same moment: the order of puts decides
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sandboxesOutlive(t *testing.T, s service.Store, reopen func(*testing.T, service.Store) service.Store) {
	ctx := t.Context()
	stateful, ephemeral := record(1), record(2)
	ephemeral.Mode = sandbox.Ephemeral
	ok(t, s.PutSandbox(ctx, stateful, service.Moments{}))
	ok(t, s.PutSandbox(ctx, ephemeral, service.Moments{}))
	s = reopen(t, s)
	if diff := cmp.Diff([]sandbox.Sandbox{stateful, ephemeral}, must(s.AllSandboxes(ctx))(t)); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	for _, r := range []sandbox.Sandbox{stateful, ephemeral, stateful} {
		ok(t, s.DeleteSandbox(ctx, r.ID, r.Mode))
	}
	if left := must(s.AllSandboxes(ctx))(t); len(left) > 0 {
		t.Errorf("left after deleting: %v", left)
	}
}

func listed(t *testing.T, s service.Store, _ func(*testing.T, service.Store) service.Store) {
	ctx := t.Context()
	for i := range 5 {
		ok(t, s.PutSandbox(ctx, record(i), service.Moments{}))
	}
	other := record(9)
	other.Namespace = "other"
	ok(t, s.PutSandbox(ctx, other, service.Moments{}))
	for _, c := range []struct {
		name  string
		query service.SandboxQuery
		want  string
		total int
	}{
		{"ascending, two a page", service.SandboxQuery{Paging: service.Paging{Page: 2, PerPage: 2}}, "[n2 n3]", 5},
		{"descending", service.SandboxQuery{Paging: service.Paging{Page: 1, PerPage: 9, Descending: true}}, "[n4 n3 n2 n1 n0]", 5},
		{"by name", service.SandboxQuery{Paging: service.Paging{Page: 1, PerPage: 1, Sort: "name", Descending: true}}, "[n4]", 5},
		{"after the end", service.SandboxQuery{Paging: service.Paging{Page: 4, PerPage: 2}}, "[]", 5},
		{"by label", service.SandboxQuery{LabelKey: "i", LabelValue: "1", Paging: service.Paging{Page: 1, PerPage: 9}}, "[n1 n3]", 2},
		{"by an odd label", service.SandboxQuery{LabelKey: "a.b\"c", LabelValue: "x", Paging: service.Paging{Page: 1, PerPage: 1}}, "[n0]", 5},
		{"by another mode", service.SandboxQuery{Mode: "ephemeral", Paging: service.Paging{Page: 1, PerPage: 9}}, "[]", 0},
		{"by status and language", service.SandboxQuery{Status: "running", Language: "python", Paging: service.Paging{Page: 1, PerPage: 1}}, "[n0]", 5},
	} {
		c.query.Namespace = "default"
		rows, total, err := s.ListSandboxes(ctx, c.query)
		names := []string{}
		for _, r := range rows {
			names = append(names, r.Name)
		}
		if fmt.Sprint(names) != c.want || total != c.total || err != nil {
			t.Errorf("%s: %v of %d, %v; want %s of %d", c.name, names, total, err, c.want, c.total)
		}
	}
	if _, _, err := s.ListSandboxes(ctx, service.SandboxQuery{Paging: service.Paging{Page: 1, PerPage: 1, Sort: "id; DROP TABLE sandboxes"}}); err == nil {
		t.Error("sorted by what is no field")
	}
}

func replaced(t *testing.T, s service.Store, _ func(*testing.T, service.Store) service.Store) {
	r := record(1)
	ok(t, s.PutSandbox(t.Context(), r, service.Moments{}))
	r.Status = sandbox.LostNow
	ok(t, s.PutSandbox(t.Context(), r, service.Moments{}))
	if got := must(s.AllSandboxes(t.Context()))(t); len(got) != 1 || got[0].Status != sandbox.LostNow {
		t.Errorf("after a second put: %v", got)
	}
}

func credential(id, kind, maker string) service.Credential {
	c := service.Credential{ID: id, Kind: kind, Name: "n-" + id, Namespace: "default", Role: sandbox.Write, Maker: maker, CreatedAt: sandbox.Now()}
	copy(c.Hash[:], id)
	return c
}

func credentialsOutlive(t *testing.T, s service.Store, reopen func(*testing.T, service.Store) service.Store) {
	ctx := t.Context()
	c := credential("key_1", service.KeyKind, "root")
	expires := sandbox.Now()
	c.RateLimit, c.ExpiresAt = new(0), &expires
	ok(t, s.PutCredential(ctx, c))
	s = reopen(t, s)
	for _, got := range []service.Credential{must(s.Credential(ctx, c.ID))(t), must(s.CredentialByHash(ctx, c.Hash))(t)} {
		if diff := cmp.Diff(c, got); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}
	}
	rows, total, err := s.ListCredentials(ctx, service.CredentialQuery{Kind: service.TokenKind, Paging: service.Paging{Page: 1, PerPage: 9}})
	if len(rows) > 0 || total > 0 || err != nil {
		t.Errorf("keys among the tokens: %v, %v", rows, err)
	}
	if _, err := s.Credential(ctx, "key_2"); sandbox.CodeOf(err) != sandbox.NotFound {
		t.Errorf("a credential that never was: %v", err)
	}
}

func cascade(t *testing.T, s service.Store, _ func(*testing.T, service.Store) service.Store) {
	ctx := t.Context()
	for _, c := range []service.Credential{
		credential("key_1", service.KeyKind, "root"), credential("pat_1", service.TokenKind, "key_1"),
		credential("pat_2", service.TokenKind, "pat_1"), credential("key_2", service.KeyKind, "key_1"), credential("pat_3", service.TokenKind, "root"),
	} {
		ok(t, s.PutCredential(ctx, c))
	}
	ok(t, s.DeleteCredential(ctx, "key_1"))
	for id, want := range map[string]sandbox.Code{"key_1": sandbox.NotFound, "pat_1": sandbox.NotFound, "pat_2": sandbox.NotFound, "key_2": "", "pat_3": ""} {
		if _, err := s.Credential(ctx, id); sandbox.CodeOf(err) != want {
			t.Errorf("%s after its maker's end: %v, want %q", id, err, want)
		}
	}
}

func note(key string, expires time.Duration) service.Call {
	return service.Call{Scope: "root POST /x", Key: key, Body: [32]byte{1}, Run: "run_1", Begun: time.Now(), Expires: time.Now().Add(expires)}
}

func begunOnce(t *testing.T, s service.Store, _ func(*testing.T, service.Store) service.Store) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	begun := 0
	for range 8 {
		wg.Go(func() {
			_, fresh, err := s.BeginCall(t.Context(), note("k", time.Hour))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if fresh {
				begun++
			}
		})
	}
	wg.Wait()
	if begun != 1 {
		t.Errorf("begun %d times", begun)
	}
	ok(t, s.ForgetCall(t.Context(), "root POST /x", "k"))
	if _, fresh, err := s.BeginCall(t.Context(), note("k", time.Hour)); !fresh || err != nil {
		t.Errorf("after it was forgotten: %v, %v", fresh, err)
	}
}

func answerOutlives(t *testing.T, s service.Store, reopen func(*testing.T, service.Store) service.Store) {
	c := note("k", time.Hour)
	must(first(s.BeginCall(t.Context(), c)))(t)
	must(first(s.BeginCall(t.Context(), note("cut off", time.Hour))))(t)
	c.Answer = service.Answer{Status: 201, Body: []byte(`{"a":1}`)}
	ok(t, s.EndCall(t.Context(), c))
	s = reopen(t, s)
	got, fresh, err := s.BeginCall(t.Context(), note("k", time.Hour))
	if fresh || err != nil || !got.Done || got.Body != c.Body || got.Run != "run_1" || cmp.Diff(c.Answer, got.Answer) != "" {
		t.Errorf("after a restart: %+v, %v, %v", got, fresh, err)
	}
	if got, fresh, err = s.BeginCall(t.Context(), note("cut off", time.Hour)); fresh || got.Done || err != nil {
		t.Errorf("one cut off, after a restart: %+v, %v, %v", got, fresh, err)
	}
}

func first(c service.Call, _ bool, err error) (service.Call, error) { return c, err }

func callsExpire(t *testing.T, s service.Store, _ func(*testing.T, service.Store) service.Store) {
	must(first(s.BeginCall(t.Context(), note("old", -time.Second))))(t)
	if _, fresh, err := s.BeginCall(t.Context(), note("old", time.Hour)); !fresh || err != nil {
		t.Errorf("the key of an expired call is not free: %v", err)
	}
	ok(t, s.ExpireCalls(t.Context(), time.Now().Add(2*time.Hour)))
	if _, fresh, err := s.BeginCall(t.Context(), note("old", time.Hour)); !fresh || err != nil {
		t.Errorf("after expiry: %v, %v", fresh, err)
	}
}

func eventsInOrder(t *testing.T, s service.Store, reopen func(*testing.T, service.Store) service.Store) {
	ctx := t.Context()
	add := func(namespace, id, kind string, at time.Time) uint64 {
		t.Helper()
		return must(s.AddEvent(ctx, namespace, sandbox.Event{SandboxID: id, Type: kind, At: sandbox.At(at)}))(t)
	}
	old, now := time.Now().Add(-time.Hour), time.Now()
	a, b, c := add("one", "sb_1", "running", old), add("one", "sb_2", "running", now), add("two", "sb_3", "running", now)
	if a == 0 || a >= b || b >= c {
		t.Errorf("seqs %d, %d, %d", a, b, c)
	}
	s = reopen(t, s)
	if last := must(s.LastEvent(ctx))(t); last != c {
		t.Errorf("the last is %d, not %d", last, c)
	}
	for _, tc := range []struct {
		q    service.EventQuery
		want []uint64
	}{
		{service.EventQuery{Namespace: "one", Most: 10}, []uint64{a, b}}, {service.EventQuery{Namespace: "one", Since: a, Most: 10}, []uint64{b}},
		{service.EventQuery{Namespace: "one", SandboxID: "sb_1", Most: 10}, []uint64{a}}, {service.EventQuery{Namespace: "one", Most: 1}, []uint64{a}},
		{service.EventQuery{Namespace: "one", SandboxID: "sb_3", Most: 10}, nil}, {service.EventQuery{Namespace: "three", Most: 10}, nil},
	} {
		var got []uint64
		for _, e := range must(s.Events(ctx, tc.q))(t) {
			got = append(got, e.Seq)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tc.q, diff)
		}
	}
	ok(t, s.ExpireEvents(ctx, now.Add(time.Hour)))
	if d := add("one", "sb_1", "deleted", now); d <= c {
		t.Errorf("seq %d was used before", d)
	}
}

// callsTime: what the store's own clock says counts for nothing.
func callsTime(t *testing.T, s service.Store, _ func(*testing.T, service.Store) service.Store) {
	long := time.Now().Add(-100 * 24 * time.Hour)
	c := note("k", 0)
	c.Begun, c.Expires = long, long.Add(time.Hour)
	must(first(s.BeginCall(t.Context(), c)))(t)
	c.Begun = long.Add(time.Hour - time.Second)
	if _, fresh, err := s.BeginCall(t.Context(), c); fresh || err != nil {
		t.Errorf("within its hour: %v, %v", fresh, err)
	}
	c.Begun = long.Add(time.Hour)
	if _, fresh, err := s.BeginCall(t.Context(), c); !fresh || err != nil {
		t.Errorf("after its hour: %v, %v", fresh, err)
	}
}

func execsOutlive(t *testing.T, s service.Store, reopen func(*testing.T, service.Store) service.Store) {
	ctx := t.Context()
	var want []service.ExecNote
	for _, id := range []string{"exec_b", "exec_a", "exec_gone"} {
		want = append(want, service.ExecNote{ID: id, SandboxID: "sb_1", Namespace: "n", Language: "python", Command: "c", StartedAt: sandbox.Now(), Began: time.UnixMilli(1_700_000_000_123).UTC(), TimeoutMS: 1, MaxOutputBytes: 2, Keep: 3, Base64: true})
		ok(t, s.PutExec(ctx, want[len(want)-1]))
	}
	want = want[:2]
	want[0].EndedAt, want[0].Result = new(sandbox.Now()), &sandbox.ExecResult{ID: "exec_b", ExitCode: 5, Files: map[string]sandbox.FileContent{"f": []byte("x")}}
	want[1].EndedAt, want[1].Error = new(sandbox.Now()), &sandbox.ErrorBody{Code: sandbox.Lost, Message: "m"}
	for _, n := range want {
		ok(t, s.PutExec(ctx, n))
	}
	ok(t, s.DeleteExec(ctx, "exec_gone"))
	ok(t, s.DeleteExec(ctx, "exec_never"))
	var got []service.ExecNote
	s = reopen(t, s)
	ok(t, s.Execs(ctx, func(n service.ExecNote) error {
		got = append(got, n)
		return s.DeleteExec(ctx, n.ID)
	}))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	ok(t, s.Execs(ctx, func(n service.ExecNote) error { return fmt.Errorf("%s was deleted", n.ID) }))
}

func clockOutlives(t *testing.T, s service.Store, reopen func(*testing.T, service.Store) service.Store) {
	ctx := t.Context()
	if n, noted, err := s.Clock(ctx); noted || err != nil || n != (service.ClockNote{}) {
		t.Errorf("an empty store: %v, %v, %v", n, noted, err)
	}
	at := time.UnixMilli(1_700_000_000_123)
	want := map[string]service.Moments{}
	for i := range 2 {
		r, m := record(i), service.Moments{Made: at.Add(time.Duration(i) * time.Hour), Used: at.Add(time.Duration(i) * time.Minute)}
		ok(t, s.PutSandbox(ctx, r, service.Moments{Made: at, Used: at}))
		ok(t, s.PutSandbox(ctx, r, m))
		want[r.ID] = m
	}
	note := service.ClockNote{Boot: "a", Origin: time.Unix(0, 1_700_000_000_123_456_789), Ahead: -time.Hour - 1, Seen: time.Unix(0, 1_800_000_000_000_000_001)}
	ok(t, s.PutClock(ctx, service.ClockNote{Boot: "before"}))
	ok(t, s.PutClock(ctx, note))
	s = reopen(t, s)
	if got, noted, err := s.Clock(ctx); !noted || err != nil || got != note {
		t.Errorf("after a restart: %v, %v, %v; want %v", got, noted, err, note)
	}
	if diff := cmp.Diff(want, must(s.Moments(ctx))(t)); diff != "" {
		t.Errorf("moments after a restart (-want +got):\n%s", diff)
	}
}
