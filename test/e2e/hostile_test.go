package e2e_test

import (
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

// hostiles are programs that mean harm; each must end as an ordinary result while another sandbox goes on answering.
var hostiles = []struct {
	name   string
	code   string
	reason sandbox.TerminationReason // "" for any
	stdout string                    // how it begins; "" for any
}{
	{"a fork bomb", "import os\nwhile True:\n\ttry: os.fork()\n\texcept OSError: pass", sandbox.TimedOut, ""},
	{"a fork bomb of threads", "import threading, time\nwhile True:\n\ttry: threading.Thread(target=time.sleep, args=(99,)).start()\n\texcept RuntimeError: pass", sandbox.TimedOut, ""},
	{"a memory bomb in many processes", `
import os
for _ in range(6): os.fork()
b = []
while True: b.append(bytearray(1 << 20))`, sandbox.OOMKilled, ""},
	{"an inode bomb", `
import os, errno
n = 0
try:
	while n < 5_000_000: os.close(os.open(f"f{n}", os.O_CREAT)); n += 1
except OSError as e: print(errno.errorcode[e.errno])`, "", ""},
	{"a deep tree of directories", `
import os
n = 0
try:
	while n < 50_000: os.mkdir("d"); os.chdir("d"); n += 1
except OSError as e: pass
print("done")`, sandbox.Exited, "done"},
	{"closed descriptors", "import os\nfor fd in range(4096):\n\ttry: os.close(fd)\n\texcept OSError: pass\nos._exit(7)", sandbox.Exited, ""},
	{"garbage in every descriptor", `
import os
for fd in range(4096):
	for _ in range(3):
		try: os.write(fd, b"\0\0\0\xffE{}" + bytes(range(256)))
		except OSError: pass
os._exit(0)`, sandbox.Exited, ""},
	{"forged ends on its own pipes", `
import os, json
for kind in b"EXRSOP": os.write(1, bytes([kind]) + (40).to_bytes(4, "big") + json.dumps({"Code": 0, "Signal": 0}).encode())
os._exit(9)`, sandbox.Exited, ""},
	{"killing all it can", "import os, signal\nif os.fork():\n\tos.kill(-1, signal.SIGKILL)\n\tos.kill(os.getpid(), signal.SIGKILL)\nsignal.pause()", sandbox.Signaled, ""},
	{"stopping all it can", "import os, signal\nif os.fork():\n\tos.kill(-1, signal.SIGSTOP)\n\tos.kill(os.getpid(), signal.SIGSTOP)\nsignal.pause()", sandbox.TimedOut, ""},
	{"killing itself", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", sandbox.Signaled, ""},
	{"a giant argument list", `
import os
try: os.execv("/bin/true", ["x" * 100000] * 100)
except OSError as e: print("refused")`, sandbox.Exited, "refused"},
	{"a stack without end", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", "", ""},
	{"locked and mapped memory", `
import mmap
keep = []
try:
	while True:
		m = mmap.mmap(-1, 1 << 24); m[:] = bytes(1 << 24); keep.append(m)
except OSError: pass`, sandbox.OOMKilled, ""},
	{"full pipes and sockets", `
import os, socket
keep = []
try:
	while True:
		a, b = socket.socketpair(); a.setblocking(False); keep += [a, b]
		try:
			while True: a.send(bytes(65536))
		except BlockingIOError: pass
except OSError as e: print("ended")`, "", ""},
	{"control groups mounted", `
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("/tmp/cg", exist_ok=True)
for kind in (b"cgroup", b"cgroup2"):
	if libc.mount(b"none", b"/tmp/cg", kind, 0, b"memory") == 0: print("mounted")
if os.path.exists("/sys/fs/cgroup"): print("there")
print("done")`, sandbox.Exited, "done"},
	{"its own control group written through /proc", `
import os
for f in ("cgroup", "oom_score_adj", "sched", "autogroup", "timerslack_ns"):
	try: open("/proc/self/" + f, "w").write("-1000")
	except OSError: pass
print("done")`, sandbox.Exited, "done"},
}

func TestHostileProgramsEndAsOrdinaryResultsWhileOthersAreAnswered(t *testing.T) {
	leakCheck(t, shared)
	for _, h := range hostiles {
		for _, p := range []sandbox.Preset{sandbox.Development, sandbox.Standard} {
			if p == sandbox.Development && testing.Short() {
				continue
			}
			t.Run(h.name+" in "+string(p), func(t *testing.T) {
				t.Parallel()
				r := in(p)
				r.Language, r.Code = new("python"), &h.code
				r.ResourceLimits = &sandbox.LimitsRequest{MemoryMB: new(128), TimeoutMS: new(4000), DiskMB: new(64), Pids: new(64)}
				got := answersMeanwhile(t, shared, r)
				if h.reason != "" && got.TerminationReason != h.reason {
					t.Errorf("ended as %s with %d, want %s\n%.500s\n%.500s", got.TerminationReason, got.ExitCode, h.reason, got.Stdout, got.Stderr)
				}
				if !strings.HasPrefix(got.Stdout, h.stdout) {
					t.Errorf("printed %.500q %.500q", got.Stdout, got.Stderr)
				}
			})
		}
	}
}

func TestAStatefulSandboxOutlivesWhatRunsInIt(t *testing.T) {
	leakCheck(t, shared)
	for _, h := range hostiles {
		if testing.Short() && !strings.Contains(h.name, "all it can") {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			made := shared.box(t, sandbox.CreateRequest{Mode: new("stateful"), Security: &sandbox.SecurityRequest{Preset: new("development")},
				ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(128), TimeoutMS: new(4000), DiskMB: new(64), Pids: new(64)}})
			shared.python(t, made.ID, h.code)
			again, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"echo", "again"}, WorkingDir: new("/tmp")})
			if err != nil {
				t.Fatal(err)
			}
			if out := clean(t, again); out != "again" {
				t.Errorf("answered %q", out)
			}
		})
	}
}

func TestAFloodOfOutputIsCountedAndCut(t *testing.T) {
	leakCheck(t, shared)
	r := sandbox.ExecuteRequest{Language: new("python"), Code: new(`
import os
for _ in range(256): os.write(1, b"o" * (1 << 18)); os.write(2, b"e" * (1 << 17))
`)}
	got := answersMeanwhile(t, shared, r)
	if got.StdoutBytes != 256<<18 || got.StderrBytes != 256<<17 {
		t.Errorf("%d and %d bytes, want %d and %d", got.StdoutBytes, got.StderrBytes, 256<<18, 256<<17)
	}
	if !got.StdoutTruncated || !got.StderrTruncated || len(got.Stdout) != 1<<20 || len(got.Stderr) != 1<<20 {
		t.Errorf("kept %d and %d bytes", len(got.Stdout), len(got.Stderr))
	}
	if got.ExitCode != 0 {
		t.Errorf("ended as %s with %d", got.TerminationReason, got.ExitCode)
	}
	endless := sandbox.ExecuteRequest{Language: new("python"), Code: new("import os\nwhile True: os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)"),
		ResourceLimits: &sandbox.LimitsRequest{TimeoutMS: new(1000)}}
	if got := answersMeanwhile(t, shared, endless); !got.TimedOut || got.StdoutBytes < 1<<20 {
		t.Errorf("ended as %s after %d bytes", got.TerminationReason, got.StdoutBytes)
	}
}

func TestSwappedSymlinksLeadFilesAndCollectNowhereOutside(t *testing.T) {
	leakCheck(t, shared)
	made := shared.box(t, sandbox.CreateRequest{Mode: new("stateful"), Security: &sandbox.SecurityRequest{Preset: new("development")}})
	clean(t, shared.python(t, made.ID, `
import os, subprocess
subprocess.Popen(["python3", "-c", '''
import os
targets = ["/proc/1/root", "/proc/1/cwd", "../../../../../..", "/proc/self/root/..", "/"]
os.makedirs("real/etc", exist_ok=True)
n = 0
while True:
	n += 1
	os.symlink(targets[n % len(targets)] if n % 2 else "real", "new")
	os.rename("new", "way")
'''], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
while not os.path.islink("way"): pass
`))
	inside := clean(t, shared.python(t, made.ID, "print(open('/etc/passwd').read())"))
	tries := 60
	if testing.Short() {
		tries = 15
	}
	collected := 0
	for range tries {
		r, err := shared.Exec(t.Context(), made.ID, sandbox.ExecRequest{Command: []string{"true"},
			Files:   map[string]sandbox.FileContent{"way/etc/written-by-files": sandbox.FileContent("x")},
			Collect: []string{"way/etc/passwd", "way/etc/passw?", "way/root/etc/passwd"}}) // the agent has the root at /root
		if err != nil {
			if sandbox.CodeOf(err) == sandbox.Internal {
				t.Fatalf("a symlink became a server error: %v", err)
			}
			continue // refused in words
		}
		for path, content := range r.Files {
			if got := strings.TrimSpace(string(content)); !strings.HasSuffix(path, "/etc/passwd") || strings.HasPrefix(path, "way/root/") || got != inside {
				t.Fatalf("%s gave %q, inside /etc/passwd is %q", path, got, inside)
			}
			collected++
		}
	}
	if collected == 0 {
		t.Errorf("in %d tries the symlink never led to a file: it proves nothing", tries)
	}
}
