package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/sandbox"
)

func limited(l sandbox.LimitsRequest) sandbox.ExecuteRequest {
	return sandbox.ExecuteRequest{ResourceLimits: &l}
}

func TestMemoryIsCountedOverAllProcessesAndSharedMemoryTogether(t *testing.T) {
	leakCheck(t, shared)
	for _, tc := range []struct{ name, code string }{
		{"one process", "b = bytearray(120 << 20)"},
		{"three processes of 40 MB each", `
import os, time
for _ in range(3):
	if os.fork() == 0:
		b = bytearray(40 << 20); time.sleep(1000)
time.sleep(1000)`},
		{"files in /dev/shm and a process", `
with open("/dev/shm/x", "wb") as f:
	for _ in range(28): f.write(bytes(1 << 20))
b = bytearray(b"x") * (50 << 20)
print("not reached")`},
		{"memory shared by its descriptor alone", `
import os
f = os.memfd_create("x")
for _ in range(100): os.write(f, b"x" * (1 << 20))
print("not reached")`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := shared.once(t, limited(sandbox.LimitsRequest{MemoryMB: new(64), TimeoutMS: new(20000)}), tc.code)
			if !r.OOMKilled || r.TerminationReason != sandbox.OOMKilled || r.ExitCode != 137 || r.TimedOut {
				t.Errorf("ended as %s with %d (oom_killed %v): %s%s", r.TerminationReason, r.ExitCode, r.OOMKilled, r.Stdout, r.Stderr)
			}
			if limit := int64(64 << 20); r.Usage.MemoryPeakBytes > limit || r.Usage.MemoryPeakBytes < limit/2 {
				t.Errorf("memory_peak_bytes %d of a limit of %d", r.Usage.MemoryPeakBytes, limit)
			}
		})
	}
	t.Run("a stateful sandbox lives on", func(t *testing.T) {
		made := shared.box(t, sandbox.CreateRequest{Mode: new("stateful"), ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(64)}})
		for range 2 {
			if r := shared.python(t, made.ID, "b = bytearray(120 << 20)"); !r.OOMKilled {
				t.Errorf("ended as %s", r.TerminationReason)
			}
			if out := clean(t, shared.python(t, made.ID, "b = bytearray(30 << 20); print('fits')")); out != "fits" {
				t.Errorf("after it: %q", out)
			}
		}
	})
}

func TestCPUIsLimitedAsBandwidthAndSeenAsProcessors(t *testing.T) {
	leakCheck(t, shared)
	const busy = `
import os, time
wall, own = time.monotonic(), time.process_time()
while time.monotonic() - wall < 1.5: pass
print((time.process_time() - own) / (time.monotonic() - wall), os.cpu_count(), len(os.sched_getaffinity(0)), os.popen("nproc").read())
`
	for _, cores := range []float64{0.2, 0.5} {
		out := strings.Fields(clean(t, shared.once(t, limited(sandbox.LimitsRequest{CPUCores: &cores}), busy)))
		share, err := strconv.ParseFloat(out[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		if share > cores*1.35 { // a busy host gives less, never more
			t.Errorf("cpu_cores %v gave %v of a processor", cores, share)
		}
		if out[1] != "1" || out[2] != "1" || out[3] != "1" {
			t.Errorf("cpu_cores %v is seen as cpu_count %s, affinity %s, nproc %s; want 1", cores, out[1], out[2], out[3])
		}
	}
	t.Run("over all processes together", func(t *testing.T) {
		r := shared.once(t, limited(sandbox.LimitsRequest{CPUCores: new(0.5)}), `
import os, time
for _ in range(3):
	if os.fork() == 0: break
end = time.monotonic() + 1.5
while time.monotonic() < end: pass
try:
	while True: os.wait()
except ChildProcessError: pass`)
		clean(t, r)
		if share := r.Usage.CPUMS / r.Timings.RunMS; share > 0.5*1.35 {
			t.Errorf("four processes used %v of a processor", share)
		}
	})
}

func TestTheDiskHoldsWhatWasAskedForAndNoMore(t *testing.T) {
	leakCheck(t, shared)
	const fill = `
import errno, os
n, f = 0, open("big", "wb", buffering=0)
try:
	while True: n += f.write(bytes(1 << 16))
except OSError as e:
	if e.errno not in (errno.ENOSPC, errno.EDQUOT): print(e)
try: os.fsync(f.fileno())
except OSError as e: print("fsync", e)
print(n)
`
	for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful} {
		for _, mb := range []int{32, 256} {
			t.Run(fmt.Sprintf("%s of %d MB", mode, mb), func(t *testing.T) {
				made := shared.box(t, sandbox.CreateRequest{Mode: new(string(mode)),
					ResourceLimits: &sandbox.LimitsRequest{DiskMB: &mb, MemoryMB: new(64)}}) // less memory than disk
				out := clean(t, shared.python(t, made.ID, fill))
				n, err := strconv.ParseInt(out, 10, 64)
				if err != nil {
					t.Fatal(out)
				}
				if want := int64(mb) << 20; n < want*99/100 || n > want*101/100 {
					t.Errorf("%d bytes fit, want %d within 1 %%", n, want)
				}
				if mode == sandbox.Stateful {
					out := clean(t, shared.python(t, made.ID, "import os; os.remove('big'); open('small', 'w').write('x' * 100000); print('lives on')"))
					if out != "lives on" {
						t.Error(out)
					}
				}
			})
		}
	}
}

func TestAFullDiskDoesNotKeepTheNextExecFromAnswering(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, sandbox.CreateRequest{Mode: new("stateful"), ResourceLimits: &sandbox.LimitsRequest{DiskMB: new(32)}})
	shared.python(t, made.ID, "f = open('big', 'wb', buffering=0)\nwhile True: f.write(bytes(4096))")
	r, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"rm", "big"}})
	if err != nil {
		t.Fatal(err)
	}
	clean(t, r)
	clean(t, shared.python(t, made.ID, "print(1)"))
}

func TestPidsAreLimitedWithThreads(t *testing.T) {
	leakCheck(t, shared)
	r := shared.once(t, limited(sandbox.LimitsRequest{Pids: new(20)}), `
import os, threading, time
n = 1
try:
	while n < 100:
		if n % 2: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
		elif os.fork() == 0: time.sleep(1000)
		n += 1
except (OSError, RuntimeError): pass
print(n, flush=True); os._exit(0)`)
	if out := clean(t, r); out != "20" {
		t.Errorf("%s processes and threads under a limit of 20", out)
	}
	if p := r.Usage.PidsPeak; p != nil && (*p < 15 || *p > 20) {
		t.Errorf("pids_peak %d", *p)
	}
}

func TestADeadlineEndsAllThatTheProgramStarted(t *testing.T) {
	leakCheck(t, shared)
	const escapes = `
import os, sys, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
	if os.fork() == 0:
		os.setsid()
		if os.fork(): os._exit(0)
		while True: time.sleep(1000) # holds stdout and stderr
print("so far", flush=True)
LAST`
	for name, last := range map[string]string{"waits": "time.sleep(1000)", "spins": "while True: pass", "forks": "while True:\n\ttry: os.fork()\n\texcept OSError: pass"} {
		t.Run("while it "+name, func(t *testing.T) {
			const limit = 1000
			began := time.Now()
			r := shared.once(t, limited(sandbox.LimitsRequest{TimeoutMS: new(limit), Pids: new(40)}), strings.Replace(escapes, "LAST", last, 1))
			took := time.Since(began)
			if !r.TimedOut || r.TerminationReason != sandbox.TimedOut || r.ExitCode != 124 || !strings.HasPrefix(r.Stdout, "so far\n") {
				t.Errorf("ended as %s with %d and %q %q", r.TerminationReason, r.ExitCode, r.Stdout, r.Stderr)
			}
			if r.Timings.RunMS < limit*0.99 || r.Timings.RunMS > limit+250 {
				t.Errorf("ran %v ms of %d, want at most 250 more", r.Timings.RunMS, limit)
			}
			if took > 3*limit*time.Millisecond {
				t.Errorf("answered after %v", took)
			}
		})
	}
	t.Run("one that ends leaves its children's pipes behind", func(t *testing.T) {
		r := shared.once(t, limited(sandbox.LimitsRequest{TimeoutMS: new(20000)}), strings.Replace(escapes, "LAST", "os._exit(3)", 1))
		if r.ExitCode != 3 || r.TimedOut || r.Timings.RunMS > 10000 {
			t.Errorf("ended as %s with %d after %v ms", r.TerminationReason, r.ExitCode, r.Timings.RunMS)
		}
	})
}

func TestUsageIsWhatTheProgramUsed(t *testing.T) {
	leakCheck(t, shared)
	r := shared.once(t, sandbox.ExecuteRequest{}, `
import time
b = bytearray(100 << 20)
while time.process_time() < 0.5: pass`)
	clean(t, r)
	if r.Usage.CPUMS < 480 || r.Usage.CPUMS > r.DurationMS*1.1 {
		t.Errorf("cpu_ms %v of %v ms", r.Usage.CPUMS, r.DurationMS)
	}
	if r.Usage.MemoryPeakBytes < 100<<20 || r.Usage.MemoryPeakBytes > 200<<20 {
		t.Errorf("memory_peak_bytes %d", r.Usage.MemoryPeakBytes)
	}
	if small := shared.once(t, sandbox.ExecuteRequest{}, "pass"); small.Usage.MemoryPeakBytes > 60<<20 || small.Usage.CPUMS > r.Usage.CPUMS {
		t.Errorf("an empty program used %+v", small.Usage)
	}
}
