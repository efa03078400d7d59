package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/sandbox"
)

func TestAnOOMEndsItsOwnExecAndNoNeighbour(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, sandbox.CreateRequest{Mode: new("stateful"), ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(128)}})
	got := running(t, shared, made.ID, waits)
	for range 3 {
		r := shared.python(t, made.ID, "import subprocess\nsubprocess.Popen(['sleep', '1000'])\nb = bytearray(300 << 20)")
		if !r.OOMKilled {
			t.Errorf("the bomb ended as %s", r.TerminationReason)
		}
	}
	if out := clean(t, shared.python(t, made.ID, "import subprocess; print(subprocess.run(['pgrep', '-c', 'sleep'], capture_output=True, text=True).stdout)")); out != "0" {
		t.Errorf("%s children of killed execs live", out)
	}
	clean(t, shared.python(t, made.ID, "open('go', 'w')"))
	a := <-got
	if a.err != nil {
		t.Fatal(a.err)
	}
	if out := clean(t, a.result); out != "by itself" {
		t.Errorf("the neighbour said %q", out)
	}
}

func TestABackgroundProcessOutlivesItsExecAndDoesNotHoldTheAnswer(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, stateful())
	for range 3 { // with the exec's own pipes
		r := shared.python(t, made.ID, "import subprocess; subprocess.Popen(['sleep', '1000']); print('done')")
		if out := clean(t, r); out != "done" || r.DurationMS > 20000 {
			t.Errorf("%q after %v ms", out, r.DurationMS)
		}
	}
	if out := clean(t, shared.python(t, made.ID, "import subprocess; print(subprocess.run(['pgrep', '-c', 'sleep'], capture_output=True, text=True).stdout)")); out != "3" {
		t.Errorf("%s of 3 background processes live", out)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, sandbox.CreateRequest{Mode: new("stateful"), ResourceLimits: &sandbox.LimitsRequest{Pids: new(20)}})
	findings(t, shared.python(t, made.ID, `
import os
for _ in range(200): # a child that leaves a child of its own, far over the limit in all
	child = os.fork()
	if child == 0:
		if os.fork() == 0: os._exit(0)
		os._exit(0)
	os.waitpid(child, 0)
zombies = [p for p in os.listdir("/proc") if p.isdigit() and ") Z " in open(f"/proc/{p}/stat").read()]
if len(zombies) > 2: print("zombies:", zombies)
`))
}

func TestExecsOfASandboxRunTogetherAndNoMoreThanMaxConcurrency(t *testing.T) {
	leakCheck(t, shared)
	r := stateful()
	r.MaxConcurrency = new(3)
	made := shared.box(t, r)
	const count = `
import os, time
mine = f"in-{os.getpid()}"
open(mine, "w").close()
end, most = time.monotonic() + 0.3, 0
while time.monotonic() < end: most = max(most, len([f for f in os.listdir(".") if f.startswith("in-")])); time.sleep(.002)
os.remove(mine)
print(most)`
	var calls sync.WaitGroup
	seen := make([]string, 9)
	for i := range seen {
		calls.Go(func() {
			res, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: new(count)})
			if err != nil {
				t.Error(err)
				return
			}
			seen[i] = strings.TrimSpace(res.Stdout + res.Stderr)
		})
	}
	calls.Wait()
	most := ""
	for _, s := range seen {
		most = max(most, s)
	}
	if most != "3" {
		t.Errorf("at most %s at once, want 3: %v", most, seen)
	}
}

func TestManyEphemeralExecsAtOnceAreAllCleanAndRight(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, sandbox.CreateRequest{ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(64), DiskMB: new(32)}})
	var calls sync.WaitGroup
	began := time.Now()
	const n = 40
	for i := range n {
		calls.Go(func() {
			code := fmt.Sprintf("import os; print(%d, os.listdir('.'), os.path.exists('/tmp/mark')); open('/tmp/mark', 'w'); open('other', 'w')", i)
			r, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &code})
			if err != nil {
				t.Error(err)
				return
			}
			if want := fmt.Sprintf("%d ['main.py'] False\n", i); r.Stdout != want {
				t.Errorf("printed %q, want %q (%s)", r.Stdout, want, r.Stderr)
			}
		})
	}
	calls.Wait()
	t.Logf("%d execs in %v", n, time.Since(began))
}

func TestFilesAndCollectCarryBytesAsTheyAre(t *testing.T) {
	leakCheck(t, shared)
	all := make([]byte, 1<<20)
	for i := range all {
		all[i] = byte(i * 7)
	}
	for _, p := range presets {
		r := in(p)
		r.Files = map[string]sandbox.FileContent{"in.bin": all, "deep/er/text.txt": sandbox.FileContent("text\n"), "/tmp/absolute": sandbox.FileContent("")}
		r.Collect = []string{"out.bin", "deep/*/*.txt", "missing"}
		got := shared.once(t, r, `
import os, shutil
shutil.copy("in.bin", "out.bin")
for f in ("in.bin", "deep", "deep/er", "deep/er/text.txt", "/tmp/absolute"):
	if os.stat(f).st_uid != os.getuid(): print(f, "belongs to", os.stat(f).st_uid)
`)
		findings(t, got)
		if string(got.Files["out.bin"]) != string(all) || string(got.Files["deep/er/text.txt"]) != "text\n" || len(got.Files) != 2 {
			t.Errorf("%s: collected %d files, out.bin of %d bytes", p, len(got.Files), len(got.Files["out.bin"]))
		}
	}
}
