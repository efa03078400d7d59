package e2e_test

import (
	"os"
	"testing"

	"outpost.run/outpost/sandbox"
)

func TestOneSandboxDoesNotReachAnother(t *testing.T) {
	leakCheck(t, shared)
	for _, p := range []sandbox.Preset{sandbox.Development, sandbox.Standard} {
		t.Run(string(p), func(t *testing.T) {
			r := sandbox.CreateRequest{Mode: new("stateful"), Security: &sandbox.SecurityRequest{Preset: new(string(p))}}
			one, other := shared.box(t, r), shared.box(t, r)
			clean(t, shared.python(t, one.ID, `
import subprocess, os
subprocess.Popen(["python3", "-c", '''
import socket, os, ctypes, time
libc = ctypes.CDLL(None)
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0meeting"); abstract.listen()
tcp = socket.socket(); tcp.bind(("127.0.0.1", 7777)); tcp.listen()
open("/tmp/mark", "w"); open("/dev/shm/mark", "w"); open("/workspace/mark", "w"); open("/var/tmp/mark", "w")
libc.shmget(4711, 4096, 0o1666); libc.semget(4711, 1, 0o1666); libc.msgget(4711, 0o1666)
libc.mq_open(b"/mark", os.O_CREAT | os.O_RDWR, 0o666, None)
open("ready", "w")
time.sleep(1000)
'''], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
while not os.path.exists("ready"): pass
`))
			const look = `
import socket, os, ctypes
libc = ctypes.CDLL(None)
def reach(what, f):
	try: f(); print(what)
	except OSError: pass
def connect(family, to):
	s = socket.socket(family); s.connect(to)
reach("abstract", lambda: connect(socket.AF_UNIX, "\0meeting"))
reach("tcp", lambda: connect(socket.AF_INET, ("127.0.0.1", 7777)))
for f in ("/tmp/mark", "/dev/shm/mark", "/workspace/mark", "/var/tmp/mark"): reach(f, lambda: os.stat(f))
if libc.shmget(4711, 4096, 0) >= 0: print("shm")
if libc.semget(4711, 1, 0) >= 0: print("sem")
if libc.msgget(4711, 0) >= 0: print("msg")
if libc.mq_open(b"/mark", os.O_RDWR) >= 0: print("mq")
`
			findings(t, shared.python(t, other.ID, look))
			if out := clean(t, shared.python(t, one.ID, look)); len(out) < len("abstract tcp /tmp/mark") { // the looks can see
				t.Errorf("in the same sandbox only %q is seen", out)
			}
			findings(t, shared.python(t, other.ID, `
import os
others = [open(f"/proc/{p}/cmdline").read() for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
others = [o for o in others if "meeting" in o]
if others: print(others)
`))
		})
	}
}

func TestTheServerIsNotReachedFromInside(t *testing.T) {
	leakCheck(t, shared)
	address := shared.Address()
	if os.Getenv("OUTPOST_E2E_CANARY") != "" {
		t.Fatal("the canary is for the server's environment alone")
	}
	for _, p := range presets {
		t.Run(string(p), func(t *testing.T) {
			r := in(p)
			r.Env = [][2]string{{"SERVER", address}}
			findings(t, shared.once(t, r, `
import os, urllib.request
try: print("reached:", urllib.request.urlopen(os.environ["SERVER"] + "/healthz", timeout=2).read())
except OSError: pass
`))
		})
	}
}
