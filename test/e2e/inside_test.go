package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

// inEveryPreset runs a program that prints a line for each thing that is wrong.
func inEveryPreset(t *testing.T, code string) {
	t.Helper()
	leakCheck(t, shared)
	for _, p := range presets {
		t.Run(string(p), func(t *testing.T) { findings(t, shared.once(t, in(p), code)) })
	}
}

const tellOfHost = `
import os, sys
host = HOST
def check(what, text):
	if isinstance(text, bytes): text = text.decode("utf-8", "replace")
	for word in host:
		if word in text: print(f"{what} tells of the host's {word!r}: {text[:3000]}")
def read(path):
	try: return open(path, "rb").read(1 << 20)
	except OSError: return b""
for pid in [p for p in os.listdir("/proc") if p.isdigit()] + ["self", "thread-self"]:
	for f in "mountinfo mounts mountstats cgroup maps environ cmdline stat status limits smaps numa_maps comm".split():
		check(f"/proc/{pid}/{f}", read(f"/proc/{pid}/{f}"))
	for f in "exe cwd root".split():
		try: check(f"/proc/{pid}/{f}", os.readlink(f"/proc/{pid}/{f}"))
		except OSError: pass
	try:
		for fd in os.listdir(f"/proc/{pid}/fd"): check(f"/proc/{pid}/fd/{fd}", os.readlink(f"/proc/{pid}/fd/{fd}"))
	except OSError: pass
for k, v in os.environ.items(): check("environment", f"{k}={v}")
for dir, _, files in os.walk("/proc"):
	if dir == "/proc" or dir.startswith("/proc/sys") or dir.startswith("/proc/net"):
		for f in files: check(f"{dir}/{f}", read(f"{dir}/{f}"))
for top in ["/etc", "/run", "/var/tmp", "/tmp", "/dev", "/sys", "/home", "/root", "/mnt", "/srv", "/opt", "/workspace"]:
	for dir, dirs, files in os.walk(top):
		check("a name", "\n".join(dirs + files))
		if top in ("/etc", "/run", "/sys"):
			for f in files: 
				if os.path.isfile(f"{dir}/{f}") and f != "os-release": check(f"{dir}/{f}", read(f"{dir}/{f}"))
`

func TestNothingInsideTellsOfTheHost(t *testing.T) {
	onThisHost(t)
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	words := []string{shared.dir, work, filepath.Base(work), "outpost", "OUTPOST", "a variable of the host", adminToken, "/m_"}
	if len(hostname) > 3 && hostname != "localhost" {
		words = append(words, hostname)
	}
	list, err := json.Marshal(words)
	if err != nil {
		t.Fatal(err)
	}
	inEveryPreset(t, strings.Replace(tellOfHost, "HOST", string(list), 1))
}

func TestOnlyThePresetsOwnProcessesAreThereAndTheFirstIsOutOfReach(t *testing.T) {
	inEveryPreset(t, `
import os, ctypes, signal
pids = sorted(int(p) for p in os.listdir("/proc") if p.isdigit())
if pids[0] != 1 or set(pids) - {1, os.getpid()}: print("processes:", pids, [open(f"/proc/{p}/comm").read() for p in pids])
libc = ctypes.CDLL(None, use_errno=True)
for s in (0, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
	try:
		os.kill(1, s)
		if s == signal.SIGSTOP or s == signal.SIGKILL:
			if "T" == open("/proc/1/stat").read().rsplit(")")[1].split()[0]: print("pid 1 was stopped")
	except PermissionError: pass
if not os.path.exists("/proc/1"): print("pid 1 was killed")
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
for request in (PTRACE_ATTACH, PTRACE_SEIZE):
	if libc.ptrace(request, 1, 0, 0) == 0: print("pid 1 could be traced by", request)
class iovec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
buf = ctypes.create_string_buffer(8)
here = iovec(ctypes.addressof(buf), 8)
for at in (0x400000, id(buf)):
	there = iovec(at, 8)
	if libc.process_vm_readv(1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) >= 0: print("pid 1 could be read")
	if ctypes.get_errno() not in (1, 3): print("process_vm_readv says", os.strerror(ctypes.get_errno()))
	if libc.process_vm_writev(1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) >= 0: print("pid 1 could be written")
for f in "mem environ maps smaps stack syscall auxv pagemap io".split():
	try:
		with open(f"/proc/1/{f}", "rb") as x:
			if b := x.read(1): print(f"/proc/1/{f} gave {b}")
	except OSError: pass
for f in "root cwd exe".split():
	try: print(f"/proc/1/{f} is", os.readlink(f"/proc/1/{f}"))
	except OSError: pass
	try: print(f"/proc/1/{f} lists", os.listdir(f"/proc/1/{f}/"))
	except OSError: pass
try:
	for fd in os.listdir("/proc/1/fd"): print("descriptor of pid 1:", fd)
except OSError: pass
for f, text in (("mem", "x"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1"), ("setgroups", "allow")):
	try:
		with open(f"/proc/1/{f}", "w") as x: x.write(text)
		print(f"/proc/1/{f} was written")
	except OSError: pass
fd = libc.syscall(434, 1, 0) # pidfd_open
if fd >= 0 and libc.syscall(438, fd, 0, 0) >= 0: print("pidfd_getfd took a descriptor of pid 1")
for kind in "user mnt pid net".split():
	try: os.close(os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)); print(f"/proc/1/ns/{kind} could be opened")
	except OSError: pass
`)
}

func TestAProgramHasItsThreeDescriptorsAndNoneLeadsOut(t *testing.T) {
	inEveryPreset(t, `
import os
fds = {int(f) for f in os.listdir("/proc/self/fd")}
real = set()
for fd in fds:
	try: os.fstat(fd); real.add(fd)
	except OSError: pass
if real != {0, 1, 2}: print("descriptors:", {f: os.readlink(f"/proc/self/fd/{f}") for f in real})
for fd in range(0, 64):
	for way in (f"/proc/self/fd/{fd}", f"/dev/fd/{fd}"):
		try: os.chdir(way); print("cwd through", way, os.getcwd())
		except OSError: pass
	try: x = os.open("../../../../../../../../etc/hostname", os.O_RDONLY, dir_fd=fd); print("opened through", fd)
	except OSError: pass
a, b = os.stat("/"), os.stat("/proc/self/root/")
if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino): print("/proc/self/root is another root")
os.chdir("/")
for _ in range(64): os.chdir("..")
c = os.stat(".")
if (a.st_dev, a.st_ino) != (c.st_dev, c.st_ino): print("walked above the root to", os.listdir("."))
`)
}

func TestTheEnvironmentIsTheContracts(t *testing.T) {
	leakCheck(t, shared)
	for _, p := range presets {
		t.Run(string(p), func(t *testing.T) {
			r := in(p)
			r.Env = [][2]string{{"OWN", "value"}}
			var env map[string]string
			out := clean(t, shared.once(t, r, `import os, json; print(json.dumps(dict(os.environ)))`))
			if err := json.Unmarshal([]byte(out), &env); err != nil {
				t.Fatal(err)
			}
			if env["OWN"] != "value" {
				t.Errorf("OWN=%q", env["OWN"])
			}
			for name := range env {
				if !slices.Contains([]string{"OWN", "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_CTYPE"}, name) {
					t.Errorf("%s=%s is nobody's word", name, env[name])
				}
			}
		})
	}
}

func TestTheNetworkOfEgressNoneIsAnEmptyOneOfItsOwn(t *testing.T) {
	leakCheck(t, shared)
	for _, p := range presets {
		r := in(p)
		r.Network = egress("none")
		t.Run(string(p), func(t *testing.T) { findings(t, shared.once(t, r, emptyNetwork)) })
	}
}

const emptyNetwork = `
import os, socket, errno
if (n := [l.split(":")[0].strip() for l in open("/proc/net/dev").readlines()[2:]]) != ["lo"]: print("interfaces:", n)
if r := open("/proc/net/route").readlines()[1:]: print("routes:", r)
for f in "unix tcp udp tcp6 udp6 raw netlink packet".split():
	try:
		lines = open(f"/proc/net/{f}").readlines()[1:]
		if f == "netlink": lines = [l for l in lines if l.split()[2] != "0"] # the kernel's own
		if lines: print(f"/proc/net/{f}:", lines)
	except FileNotFoundError: pass
for address in ("1.1.1.1", "169.254.169.254", "10.0.0.1"):
	s = socket.socket(); s.settimeout(2)
	try: s.connect((address, 80)); print("reached", address)
	except OSError as e:
		if e.errno not in (errno.ENETUNREACH,): print(address, e)
s = socket.socket(); s.bind(("127.0.0.1", 80)); s.listen()
c = socket.create_connection(("127.0.0.1", 80), 2)
if socket.gethostname() != "sandbox": print("hostname", socket.gethostname())
`

func TestFilesOfTheKernelThatTellOfTheHostAreEmpty(t *testing.T) {
	inEveryPreset(t, `
import os
for f in "kcore keys key-users kmsg kallsyms config.gz timer_list sched_debug cmdline interrupts iomem ioports slabinfo vmallocinfo pagetypeinfo zoneinfo diskstats partitions modules swaps sysrq-trigger locks".split():
	try:
		if b := open("/proc/" + f, "rb").read(100): print(f"/proc/{f} gave", b)
	except OSError: pass
for d in "acpi scsi driver tty bus fs irq pressure".split():
	try:
		if l := os.listdir("/proc/" + d): print(f"/proc/{d} lists", l)
	except OSError: pass
for f in ("sys/kernel/core_pattern", "sys/vm/overcommit_memory", "sys/kernel/hostname", "sys/net/ipv4/ip_forward", "sys/user/max_user_namespaces", "sysrq-trigger", "sys/kernel/ns_last_pid"):
	try: open("/proc/" + f, "w").write("1"); print(f"/proc/{f} was written")
	except OSError: pass
if (l := os.listdir("/sys")) != ["devices"]: print("/sys:", l)
seen = {os.path.join(d, f) for d, _, files in os.walk("/sys") for f in files}
if extra := {s for s in seen if not s.startswith("/sys/devices/system/cpu/")}: print("/sys has", extra)
try: open("/sys/x", "w"); print("/sys was written")
except OSError: pass
`)
}

func TestDevicesAreAFewAndNoneCanBeMade(t *testing.T) {
	inEveryPreset(t, `
import os, stat
want = {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd", "stdin", "stdout", "stderr", "ptmx"}
if extra := set(os.listdir("/dev")) - want: print("/dev has", extra)
for dir, dirs, files in os.walk("/"):
	if dir == "/": dirs.remove("proc")
	for f in files:
		s = os.lstat(os.path.join(dir, f))
		if stat.S_ISBLK(s.st_mode) or stat.S_ISCHR(s.st_mode) and dir not in ("/dev", "/dev/pts"): print("device", dir, f)
		if stat.S_ISSOCK(s.st_mode): print("socket", dir, f)
for where in ("/tmp", "/dev/shm", "/workspace", "/dev"):
	for kind, major, minor in ((stat.S_IFBLK, 254, 0), (stat.S_IFBLK, 7, 0), (stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 10, 237)):
		p = f"{where}/node-{major}-{minor}"
		try: os.mknod(p, kind | 0o666, os.makedev(major, minor)); os.open(p, os.O_RDWR); print("made and opened", p)
		except OSError: pass
try: open("/dev/x", "w"); print("/dev was written")
except OSError: pass
open("/dev/null", "w").write("x"); assert open("/dev/zero", "rb").read(2) == b"\0\0"
`)
}

func TestIdsCapabilitiesAndRlimitsAreThePresets(t *testing.T) {
	leakCheck(t, shared)
	want := map[sandbox.Preset]struct {
		uid                        float64
		nofile, fsize, nproc, caps any
	}{
		sandbox.Development: {uid: 0},
		sandbox.Standard:    {uid: 1000, nofile: 4096.0, caps: 0.0},
		sandbox.Maximum:     {uid: 65534, nofile: 1024.0, fsize: float64(1 << 30), nproc: 100.0, caps: 0.0},
	}
	for _, p := range presets {
		t.Run(string(p), func(t *testing.T) {
			out := clean(t, shared.once(t, in(p), `
import os, json, resource as r
status = {k: v.strip() for k, _, v in (l.partition(":") for l in open("/proc/self/status"))}
caps = {k: int(status[k], 16) for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
print(json.dumps({"uids": os.getresuid(), "uid": os.getuid(), "caps": caps["CapPrm"] | caps["CapBnd"] | caps["CapEff"], "inherited": caps["CapInh"] | caps["CapAmb"],
	"nnp": status["NoNewPrivs"], "seccomp": status["Seccomp"], "uid_map": open("/proc/self/uid_map").read().split(),
	"nofile": r.getrlimit(r.RLIMIT_NOFILE)[1], "fsize": r.getrlimit(r.RLIMIT_FSIZE)[1], "nproc": r.getrlimit(r.RLIMIT_NPROC)[1], "core": r.getrlimit(r.RLIMIT_CORE)[1]}))
`))
			var got map[string]any
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			w := want[p]
			for name, v := range map[string]any{"uid": w.uid, "nofile": w.nofile, "fsize": w.fsize, "nproc": w.nproc, "caps": w.caps, "core": 0.0, "inherited": 0.0, "nnp": "1", "seccomp": "2"} {
				if v != nil && got[name] != v {
					t.Errorf("%s is %v, want %v", name, got[name], v)
				}
			}
			const dangerous = 1<<21 | 1<<12 | 1<<19 | 1<<16 | 1<<27 | 1<<39 // SYS_ADMIN, NET_ADMIN, SYS_PTRACE, SYS_MODULE, MKNOD, BPF
			if caps := uint64(got["caps"].(float64)); caps&dangerous != 0 {
				t.Errorf("capabilities %x", caps)
			}
			if m := got["uid_map"].([]any); m[0] != "0" || m[1] != "0" { // the machine's ids, not the host's
				t.Errorf("uid_map tells of the host: %v", m)
			}
		})
	}
}

func TestTheRootOfMaximumIsReadOnlyButForItsWorkingDirectoryAndTmp(t *testing.T) {
	leakCheck(t, shared)
	const tries = `
import os
for d in ("/etc", "/usr/bin", "/", "/var/lib", "/root", "/home"):
	try: open(d + "/written", "w"); wrote = True
	except OSError: wrote = False
	if wrote != WANT and (d, WANT) not in SPARED: print(d, "written" if wrote else "refused")
for d in ("/tmp", "/some/where", "."): open(d + "/written", "w").write("x")
`
	r := in(sandbox.Maximum)
	r.WorkingDir = new("/some/where")
	findings(t, shared.once(t, r, strings.NewReplacer("WANT", "False", "SPARED", "()").Replace(tries)))
	r = in(sandbox.Development)
	r.WorkingDir = new("/some/where")
	findings(t, shared.once(t, r, strings.NewReplacer("WANT", "True", "SPARED", "()").Replace(tries)))
}
