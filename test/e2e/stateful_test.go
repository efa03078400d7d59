package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

func TestStopKeepsFilesAndStartBringsThemBack(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	clean(t, shared.python(t, made.ID, leavesBehind))
	slow := make(chan sandbox.ExecResult, 1)
	go func() {
		code := "import time; open('runs', 'w'); print('so far', flush=True); time.sleep(1000)"
		r, err := shared.Exec(context.Background(), made.ID, sandbox.ExecRequest{Code: &code})
		if err != nil {
			t.Error("an exec that a stop cut off:", err)
		}
		slow <- r
	}()
	clean(t, shared.python(t, made.ID, "import os\nwhile not os.path.exists('runs'): pass"))
	stopped, err := shared.Stop(t.Context(), made.ID)
	if err != nil || stopped.ID != made.ID || stopped.Status != sandbox.Stopped || stopped.Health.Status != sandbox.HealthNone {
		t.Fatalf("stop: %+v, %v", stopped, err)
	}
	if r := <-slow; r.TerminationReason != sandbox.Cancelled || r.Stdout != "so far\n" {
		t.Errorf("the exec that the stop cut off: %+v", r)
	}
	code := "print(1)"
	if _, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &code}); sandbox.CodeOf(err) != sandbox.SandboxStopped {
		t.Errorf("exec in a stopped sandbox: %v", err)
	}
	if again, err := shared.Stop(t.Context(), made.ID); err != nil || again.Status != sandbox.Stopped {
		t.Errorf("stop a second time: %v, %v", again.Status, err)
	}
	started, err := shared.Start(t.Context(), made.ID)
	if err != nil || started.Status != sandbox.Running || len(started.Isolation.Missing) > 0 {
		t.Fatalf("start: %+v, %v", started, err)
	}
	out := clean(t, shared.python(t, made.ID, `
import os
print(open("kept").read(), oct(os.stat("kept").st_mode), os.stat("kept").st_uid)
try: os.kill(int(open("pid").read()), 0); print("a process outlived the stop")
except ProcessLookupError: pass`))
	if out != "a file 0o100644 1000" {
		t.Errorf("after stop and start: %q", out)
	}
	if again, err := shared.Start(t.Context(), made.ID); err != nil || again.Status != sandbox.Running {
		t.Errorf("start a second time: %v, %v", again.Status, err)
	}
	ephemeral := shared.box(t, sandbox.CreateRequest{})
	if _, err := shared.Stop(t.Context(), ephemeral.ID); sandbox.CodeOf(err) != sandbox.NotStateful {
		t.Errorf("stop of an ephemeral sandbox: %v", err)
	}
	if _, err := shared.Start(t.Context(), ephemeral.ID); sandbox.CodeOf(err) != sandbox.NotStateful {
		t.Errorf("start of an ephemeral sandbox: %v", err)
	}
}

func TestStopAndStartTenTimesAtOnceLoseNothing(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	clean(t, shared.python(t, made.ID, "open('n', 'w').write('0')"))
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			do := shared.Start
			if i%2 == 0 {
				do = shared.Stop
			}
			if _, err := do(t.Context(), made.ID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := shared.Start(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if out := clean(t, shared.python(t, made.ID, "print(open('n').read())")); out != "0" {
		t.Errorf("after all that: %q", out)
	}
}

// TestAMachineLostWithTheHostCanBeStartedOnItsFiles kills the machine as a host's end would: all of its processes, with
// the server away.
func TestAMachineLostWithTheHostCanBeStartedOnItsFiles(t *testing.T) {
	s := newServer(t)
	made, stays := s.box(t, stateful()), s.box(t, stateful())
	clean(t, s.python(t, made.ID, "import os; open('kept', 'w').write('a file'); os.sync()"))
	if _, err := s.Stop(t.Context(), stays.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	killMachines(t, s)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), made.ID)
	if err != nil || got.Status != sandbox.LostNow {
		t.Fatalf("after the machine's end: %v, %v", got.Status, err)
	}
	code := "print(1)"
	if _, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &code}); sandbox.CodeOf(err) != sandbox.Lost {
		t.Errorf("exec in a lost sandbox: %v", err)
	}
	for _, id := range []string{made.ID, stays.ID} {
		if _, err := s.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if out := clean(t, s.python(t, made.ID, "print(open('kept').read())")); out != "a file" {
		t.Errorf("its files: %q", out)
	}
}

func TestADiskOutlivesResetsRestartsAndCrashes(t *testing.T) {
	s := newServer(t)
	made := s.box(t, sandbox.CreateRequest{DiskSizeGB: new(1)})
	if made.DiskSizeGB == nil || *made.DiskSizeGB != 1 || made.DiskMountPath == nil || *made.DiskMountPath != "/data" {
		t.Errorf("created: %v at %v", made.DiskSizeGB, made.DiskMountPath)
	}
	count := `
import os
n = int(open("/data/n").read()) + 1 if os.path.exists("/data/n") else 0
open("/data/n", "w").write(str(n))
st = os.statvfs("/data")
assert 0.9 * 2**30 < st.f_blocks * st.f_frsize <= 1.1 * 2**30, st
assert not os.path.exists("mark"), "the rest was not reset"
open("mark", "w")
print(n)`
	for want := range 3 {
		if out := clean(t, s.python(t, made.ID, count)); out != fmt.Sprint(want) {
			t.Errorf("exec %d read %q", want, out)
		}
	}
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if out := clean(t, s.python(t, made.ID, count)); out != "3" {
		t.Errorf("after a restart: %q", out)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if out := clean(t, s.python(t, made.ID, count)); out != "4" {
		t.Errorf("after a crash: %q", out)
	}
	var all sync.WaitGroup
	for range 5 { // one at a time, in order
		all.Go(func() { clean(t, s.python(t, made.ID, count)) })
	}
	all.Wait()
	if out := clean(t, s.python(t, made.ID, count)); out != "10" {
		t.Errorf("after five at once: %q", out)
	}
	if err := s.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if out, err := s.leaks(); err != nil {
		t.Errorf("after its deletion: %v\n%s", err, out)
	}
}

func TestADiskOfAStatefulSandboxOutlivesStopAndLivesInEachPreset(t *testing.T) {
	leakCheck(t, shared)
	for _, p := range presets {
		r := stateful()
		r.DiskSizeGB, r.DiskMountPath = new(1), new("/mnt/deep/disk")
		r.Security = &sandbox.SecurityRequest{Preset: new(string(p))}
		made := shared.box(t, r)
		clean(t, shared.python(t, made.ID, "open('/mnt/deep/disk/x', 'w').write('kept')"))
		if _, err := shared.Stop(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := shared.Start(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
		if out := clean(t, shared.python(t, made.ID, "print(open('/mnt/deep/disk/x').read())")); out != "kept" {
			t.Errorf("%s: %q", p, out)
		}
	}
}

func TestADiskMayLieBelowWhatMaximumLeavesWritableAndAboveTheWorkingDirectory(t *testing.T) {
	leakCheck(t, shared)
	for _, tc := range []struct{ mount, dir, file string }{
		{"/workspace/data", "/workspace", "/workspace/data/x"}, {"/tmp/disk", "/workspace", "/tmp/disk/x"}, {"/data", "/data/below", "/data/below/x"},
		{"/workspace", "/workspace", "/workspace/x"},
	} {
		for _, p := range presets {
			made := shared.box(t, sandbox.CreateRequest{
				DiskSizeGB: new(1), DiskMountPath: &tc.mount, WorkingDir: &tc.dir, Security: &sandbox.SecurityRequest{Preset: new(string(p))},
			})
			clean(t, shared.python(t, made.ID, "import os; assert os.path.ismount('"+tc.mount+"'); open('"+tc.file+"', 'w').write('kept')"))
			if out := clean(t, shared.python(t, made.ID, "print(open('"+tc.file+"').read())")); out != "kept" {
				t.Errorf("%s at %s, preset %s: %q", tc.file, tc.mount, p, out)
			}
		}
	}
	refused := func(field string, r sandbox.CreateRequest) {
		t.Helper()
		r.Language = new("python")
		_, err := shared.Create(t.Context(), r)
		var e *sandbox.Error
		if sandbox.CodeOf(err) != sandbox.Invalid || !errors.As(err, &e) || len(e.Details) != 1 || e.Details[0].Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	refused("working_dir", sandbox.CreateRequest{WorkingDir: new("/"), Security: &sandbox.SecurityRequest{Preset: new("maximum")}})
	refused("disk_mount_path", sandbox.CreateRequest{DiskSizeGB: new(1), DiskMountPath: new("/var/lib/dpkg/status")})
	refused("disk_mount_path", sandbox.CreateRequest{DiskSizeGB: new(1), DiskMountPath: new("/var/run/x")})
}

// TestDisksOnAnotherFileSystem: operators put folders of the data directory elsewhere by links. An image must be seen to
// be in use by whatever path.
func TestDisksOnAnotherFileSystem(t *testing.T) {
	s := newServer(t)
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"volumes", "disks", "run"} {
		elsewhere := filepath.Join(s.dir, "elsewhere-"+name)
		if err := os.Rename(filepath.Join(s.dir, name), elsewhere); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(elsewhere, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	made := s.box(t, sandbox.CreateRequest{DiskSizeGB: new(1), ResourceLimits: &sandbox.LimitsRequest{DiskMB: new(16)}})
	for n := range 12 {
		out := clean(t, s.python(t, made.ID, `
import os
names = sorted(os.listdir("/data"))
open(f"/data/{len(names)}", "wb").write(os.urandom(3 << 20))
print(len(names))`))
		if out != fmt.Sprint(n+1) { // lost+found
			t.Fatalf("exec %d found %s files", n, out)
		}
	}
	if err := s.Delete(t.Context(), made.ID); err != nil {
		t.Error(err)
	}
	if out, err := s.leaks(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestTheHostsDiskIsNotPromisedTwice(t *testing.T) {
	s := newServer(t)
	free := freeBytes(t, s.dir)
	if err := s.terminate(); err != nil {
		t.Fatal(err)
	}
	s.flags = append(s.flags, "--disk-reserve-mb", fmt.Sprint(free>>20-2560), "--policy-maximum-disk-size-gb", "100000000")
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	small := &sandbox.LimitsRequest{DiskMB: new(16)}
	s.box(t, sandbox.CreateRequest{DiskSizeGB: new(1), ResourceLimits: small})
	s.box(t, sandbox.CreateRequest{DiskSizeGB: new(1), ResourceLimits: small})
	r := sandbox.CreateRequest{Language: new("python"), DiskSizeGB: new(1), ResourceLimits: small}
	if _, err := s.Create(t.Context(), r); sandbox.CodeOf(err) != sandbox.Capacity {
		t.Errorf("a third disk of 1 GB in 2.5 GB: %v", err)
	}
	r.DiskSizeGB = new(50_000_000)
	if _, err := s.Create(t.Context(), r); sandbox.CodeOf(err) != sandbox.Invalid {
		t.Errorf("a disk that the host never holds: %v", err)
	}
	s.box(t, sandbox.CreateRequest{ResourceLimits: small}) // others still work
}

func TestTimesEndSandboxesAlsoOverARestart(t *testing.T) {
	s := newServer(t)
	create := func(r sandbox.CreateRequest) sandbox.Sandbox {
		t.Helper()
		r.Mode = new("stateful")
		return s.box(t, r)
	}
	ttl, idle := create(sandbox.CreateRequest{TTLSecs: new(3)}), create(sandbox.CreateRequest{IdleTimeoutSecs: new(3)})
	stays, patched := create(sandbox.CreateRequest{TTLSecs: new(1000)}), create(sandbox.CreateRequest{TTLSecs: new(1000)})
	busy := create(sandbox.CreateRequest{IdleTimeoutSecs: new(2)})
	if ttl.ExpiresAt == nil || ttl.ExpiresAt.Sub(ttl.CreatedAt.Time) != 3*time.Second || idle.ExpiresAt == nil {
		t.Errorf("expires_at: %v, %v", ttl.ExpiresAt, idle.ExpiresAt)
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	held := make(chan sandbox.ExecResult, 1)
	go func() { held <- s.python(t, busy.ID, "import time; time.sleep(4); print('not cut off')") }()
	gone := func(id string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if _, err := s.Get(t.Context(), id); sandbox.CodeOf(err) == sandbox.NotFound {
				return
			} else if err != nil || time.Now().After(end) {
				t.Fatalf("%s is still there (%v)", id, err)
			}
		}
	}
	if got, err := s.Patch(t.Context(), patched.ID, sandbox.PatchRequest{TTLSecs: new(1), Name: new("new name"), Labels: map[string]string{"a": "b"}}); err != nil ||
		got.Name != "new name" || got.Labels["a"] != "b" || *got.TTLSecs != 1 {
		t.Errorf("PATCH: %+v, %v", got, err)
	}
	if got, err := s.Patch(t.Context(), stays.ID, sandbox.PatchRequest{TTLSecs: new(0)}); err != nil || got.TTLSecs != nil || got.ExpiresAt != nil {
		t.Errorf("PATCH of ttl_secs to 0: %+v, %v", got, err)
	}
	gone(ttl.ID)
	gone(idle.ID)
	gone(patched.ID)
	if out := clean(t, <-held); out != "not cut off" {
		t.Errorf("an exec longer than idle_timeout_secs: %q", out)
	}
	gone(busy.ID)
	if _, err := s.Get(t.Context(), stays.ID); err != nil {
		t.Error(err)
	}
	reasons := map[string]string{}
	err := s.Events(t.Context(), "", new(uint64(0)), func(e sandbox.Event) error {
		if e.Type == sandbox.DeletedEvent {
			reasons[e.SandboxID] = e.Reason
		}
		if len(reasons) == 4 {
			return client.ErrStop
		}
		return nil
	})
	want := map[string]string{ttl.ID: "ttl", idle.ID: "idle", patched.ID: "ttl", busy.ID: "idle"}
	if fmt.Sprint(reasons) != fmt.Sprint(want) || err != nil {
		t.Errorf("events say %v, want %v (%v)", reasons, want, err)
	}
}

func TestEventsComeInOrderAndAfterTheirSeq(t *testing.T) {
	s := newServer(t)
	made := s.box(t, stateful())
	for _, do := range []func(context.Context, string) (sandbox.Sandbox, error){s.Stop, s.Start} {
		if _, err := do(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	read := func(since uint64) string {
		var types []string
		seqs = nil
		err := s.Events(t.Context(), made.ID, &since, func(e sandbox.Event) error {
			types, seqs = append(types, e.Type), append(seqs, e.Seq)
			if e.Type == sandbox.DeletedEvent {
				return client.ErrStop
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return strings.Join(types, " ")
	}
	all := read(0)
	if !strings.HasPrefix(all, "running stopped") || !strings.HasSuffix(all, "running health deleted") {
		t.Errorf("events: %s", all)
	}
	_, rest, _ := strings.Cut(all, " ")
	if after := read(seqs[0]); after != rest {
		t.Errorf("after the first: %s, want %s", after, rest)
	}
	if err := s.Events(t.Context(), "sb_000000000000", nil, func(sandbox.Event) error { return nil }); sandbox.CodeOf(err) != sandbox.NotFound {
		t.Errorf("events of a sandbox that never was: %v", err)
	}
}

func TestHealthByCommandGoesThroughItsStates(t *testing.T) {
	leakCheck(t, shared)
	r := stateful()
	r.HealthCheck = &sandbox.HealthCheckRequest{
		IntervalSecs: new(1), TimeoutSecs: new(2), Retries: new(2), StartPeriodSecs: new(300), Command: []string{"test", "-e", "/workspace/well"},
	}
	made := shared.box(t, r)
	if made.Health.Status != sandbox.Starting {
		t.Errorf("created as %v", made.Health)
	}
	await := func(want sandbox.HealthStatus) sandbox.Health {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			got, err := shared.Get(t.Context(), made.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got.Health.Status == want {
				return got.Health
			}
			if time.Now().After(end) {
				t.Fatalf("health is %+v, not %s", got.Health, want)
			}
		}
	}
	clean(t, shared.python(t, made.ID, "open('well', 'w')"))
	if h := await(sandbox.Healthy); h.CheckedAt == nil || h.Failures != 0 {
		t.Errorf("healthy: %+v", h)
	}
	clean(t, shared.python(t, made.ID, "import os; os.remove('well')"))
	if h := await(sandbox.Unhealthy); h.Failures < 2 {
		t.Errorf("unhealthy: %+v", h)
	}
	clean(t, shared.python(t, made.ID, "open('well', 'w')"))
	await(sandbox.Healthy)
}

func TestAHealthCheckThatHangsHoldsUpNoExec(t *testing.T) {
	leakCheck(t, shared)
	r := stateful()
	r.MaxConcurrency = new(1)
	r.HealthCheck = &sandbox.HealthCheckRequest{
		IntervalSecs: new(1), TimeoutSecs: new(1), Retries: new(1), StartPeriodSecs: new(0), Command: []string{"sh", "-c", "touch tried; sleep 1000"},
	}
	made := shared.box(t, r)
	clean(t, shared.python(t, made.ID, "import os\nwhile not os.path.exists('tried'): pass"))
	for end := time.Now().Add(30 * time.Second); ; {
		if out := clean(t, shared.python(t, made.ID, "print('answers')")); out != "answers" {
			t.Fatal(out)
		}
		got, err := shared.Get(t.Context(), made.ID)
		if err != nil || time.Now().After(end) {
			t.Fatalf("health is %+v (%v)", got.Health, err)
		}
		if got.Health.Status == sandbox.Unhealthy {
			break
		}
	}
	if out := clean(t, shared.python(t, made.ID, "import subprocess; print(subprocess.run(['pgrep', '-c', 'sleep'], capture_output=True, text=True).stdout)")); out > "1" {
		t.Errorf("%s hung checks are still there", out)
	}
}

func TestWhatTheServerSaysOfItselfAndItsCallers(t *testing.T) {
	leakCheck(t, shared)
	before, err := shared.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shared.box(t, stateful())
	after, err := shared.Usage(t.Context())
	if err != nil || after.Sandboxes.Used != before.Sandboxes.Used+1 || after.Sandboxes.Limit != 1000 || after.Execs.Limit != 100 {
		t.Errorf("usage: %+v, then %+v, %v", before, after, err)
	}
	if who, err := shared.Whoami(t.Context()); err != nil || who.Role != sandbox.Operator {
		t.Errorf("whoami: %+v, %v", who, err)
	}
	languages, err := shared.Languages(t.Context())
	if err != nil || len(languages) < 2 || languages[0].Language != "python" || languages[0].Image == "" {
		t.Errorf("languages: %+v, %v", languages, err)
	}
	images, err := shared.Images(t.Context())
	if err != nil || len(images) == 0 || !strings.HasPrefix(images[0].Digest, "sha256:") || images[0].SizeBytes == 0 {
		t.Errorf("images: %+v, %v", images, err)
	}
}

// serveOn starts a server in a stateful sandbox, on its loopback, that answers with the status in a file.
const serveOn = `
import subprocess
open("status", "w").write("200")
open("server.py", "w").write('''
import http.server
class H(http.server.BaseHTTPRequestHandler):
	def do_GET(self):
		self.send_response(int(open("status").read()) if self.path == "/health?x=1" else 404)
		self.end_headers()
	def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8099), H).serve_forever()
''')
p = subprocess.Popen(["python3", "server.py"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
open("pid", "w").write(str(p.pid))
`

func TestHealthByHTTPAndByPortsThatWereOnceOpen(t *testing.T) {
	leakCheck(t, shared)
	byHTTP, byPort := stateful(), stateful()
	byHTTP.HealthCheck = &sandbox.HealthCheckRequest{
		IntervalSecs: new(1), TimeoutSecs: new(5), Retries: new(1), HTTP: &sandbox.HTTPCheckRequest{Port: new(8099), Path: new("/health?x=1")},
	}
	byPort.HealthCheck = &sandbox.HealthCheckRequest{IntervalSecs: new(1), TimeoutSecs: new(5), Retries: new(1)}
	byPort.Ports = []sandbox.PortRequest{{GuestPort: new(8099)}}
	for _, r := range []sandbox.CreateRequest{byHTTP, byPort} {
		made := shared.box(t, r)
		await := func(what string, wanted func(sandbox.Health) bool) {
			t.Helper()
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				got, err := shared.Get(t.Context(), made.ID)
				if err != nil || time.Now().After(end) {
					t.Fatalf("%s: health is %+v, %v", what, got.Health, err)
				}
				if wanted(got.Health) {
					return
				}
			}
		}
		checkedSince := func(at sandbox.Time) func(sandbox.Health) bool {
			return func(h sandbox.Health) bool { return h.Status == sandbox.Healthy && h.CheckedAt.After(at.Time) }
		}
		clean(t, shared.python(t, made.ID, serveOn))
		clean(t, shared.python(t, made.ID, "import socket\nwhile socket.socket().connect_ex(('127.0.0.1', 8099)): pass"))
		await("with its server", checkedSince(sandbox.Now()))
		if r.HealthCheck.HTTP != nil {
			clean(t, shared.python(t, made.ID, "open('status', 'w').write('500')"))
			await("with a server that fails", func(h sandbox.Health) bool { return h.Status == sandbox.Unhealthy })
			clean(t, shared.python(t, made.ID, "open('status', 'w').write('302')"))
			await("with a server that leads elsewhere", func(h sandbox.Health) bool { return h.Status == sandbox.Healthy })
		}
		clean(t, shared.python(t, made.ID, "import os; os.kill(int(open('pid').read()), 9)"))
		await("without its server", func(h sandbox.Health) bool { return h.Status == sandbox.Unhealthy })
	}
}
