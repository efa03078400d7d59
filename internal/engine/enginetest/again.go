package enginetest

import (
	"os"
	"os/exec"
	"path/filepath"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// again are cases on machines that are started on what they left, and on mounts.
var again = []testCase{
	{"a halted stateful machine starts again on its files, also in the next daemon", func(s *suite) {
		m := s.start(stateful)
		s.says(m, "import os; open('/root-made' if os.getuid() == 0 else 'kept', 'w').write('x'); os.mkdir('dir'); print('ok')", "ok")
		spec := s.spec
		spec.Again = true
		for range 2 {
			if err := m.Halt(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
			s.e = s.reopen()
			next, err := s.e.Start(s.t.Context(), spec)
			if err != nil {
				s.t.Fatal(err)
			}
			s.says(next, "import os; st = os.stat('kept'); print(open('kept').read(), st.st_uid, os.listdir('dir'))", "x 1000 []")
			m = next
		}
		if err := m.Stop(s.t.Context()); err != nil {
			s.t.Error(err)
		}
	}},
	{"what was removed can't be started again", func(s *suite) {
		m := s.start(stateful)
		if err := m.Stop(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		spec := s.spec
		spec.Again = true
		if _, err := s.e.Start(s.t.Context(), spec); sandbox.CodeOf(err) != sandbox.Lost {
			s.t.Errorf("start again: %v", err)
		}
	}},
	{"a disk keeps what machines write, one after the other", func(s *suite) {
		disk := filepath.Join(s.t.TempDir(), "disk.img")
		if out, err := exec.Command("mkfs.ext4", "-q", disk, "16M").CombinedOutput(); err != nil {
			s.t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
		with := func(x *engine.MachineSpec) {
			x.Mounts = []engine.Mount{{Kind: engine.DiskMount, Source: disk, Path: "/data"}}
		}
		m := s.start(stateful, with)
		s.says(m, "import os; open('/data/f', 'w').write('x'); print(os.stat('/data').st_uid)", "1000")
		if err := m.Halt(s.t.Context()); err != nil { // as a stopped one: what was written is on the disk
			s.t.Fatal(err)
		}
		s.says(s.start(stateful, with), "import os; print(open('/data/f').read(), os.stat('/data/f').st_uid)", "x 1000")
	}},
	{"a machine sees devices, files and links of the host, and can't write to the files", func(s *suite) {
		dir := s.t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("of the host"), 0o666); err != nil {
			s.t.Fatal(err)
		}
		if s.guests {
			s.t.Skip("a guest sees nothing of its host")
		}
		m := s.start(func(x *engine.MachineSpec) {
			x.Mounts = []engine.Mount{
				{Kind: engine.DeviceMount, Source: "/dev/null", Path: "/dev/deep/null"}, {Kind: engine.HostMount, Source: dir, Path: "/opt/folder"},
				{Kind: engine.LinkMount, Source: "f", Path: "/opt/link"}, {Kind: engine.HostMount, Source: filepath.Join(dir, "f"), Path: "/opt/f"},
			}
		})
		s.says(m, `
import os
open("/dev/deep/null", "w").write("x")
for name in ("/opt/folder/f", "/opt/link", "/opt/f"):
	assert open(name).read() == "of the host", name
	try: open(name, "w"); print(name, "can be written to")
	except OSError: pass
print("ok")`, "ok")
		if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(b) != "of the host" {
			s.t.Errorf("the host's file is %q, %v", b, err)
		}
	}},
	{"a layer is shown to a living machine, to programs that run already too, and taken away", func(s *suite) {
		m := s.start(stateful)
		s.says(m, `
import subprocess
subprocess.Popen(["sh", "-c", "while [ ! -e /opt/layer/etc/passwd ]; do sleep .01; done; touch seen"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("waits")`, "waits")
		if err := m.Attach(s.t.Context(), engine.Mount{Kind: engine.LayerMount, Source: s.layers[0], Path: "/opt/layer"}); err != nil {
			s.t.Fatal(err)
		}
		s.says(m, `
import os
while not os.path.exists("seen"): pass
st = os.stat("/opt/layer/etc/passwd")
try: open("/opt/layer/etc/passwd", "w"); print("can be written to")
except OSError: pass
print(st.st_uid, st.st_gid)`, "0 0")
		if err := m.Detach(s.t.Context(), "/opt/layer"); err != nil {
			s.t.Fatal(err)
		}
		s.says(m, `
import os
print(os.listdir("/opt/layer"), "/opt/layer" in open("/proc/self/mountinfo").read())`, "[] False")
		if err := m.Detach(s.t.Context(), "/opt/layer"); err == nil {
			s.t.Error("what is not there was taken away")
		}
	}},
	{"layers are shown one after the other at the same path, each for itself", func(s *suite) {
		if len(s.layers) < 2 {
			s.t.Skip("the image has one layer")
		}
		m := s.start(stateful)
		for round := range 4 { // more often than a guest has spare drives
			layer := s.layers[round%2]
			if err := m.Attach(s.t.Context(), engine.Mount{Kind: engine.LayerMount, Source: layer, Path: "/opt/layer"}); err != nil {
				s.t.Fatalf("round %d: %v", round, err)
			}
			s.says(m, `import os; print(os.path.exists("/opt/layer/etc/passwd"), len(os.listdir("/opt/layer")) > 0)`, []string{"True True", "False True"}[round%2])
			if err := m.Detach(s.t.Context(), "/opt/layer"); err != nil {
				s.t.Fatal(err)
			}
		}
	}},
	{"an agent that lives answers a ping", func(s *suite) {
		m := s.start()
		if err := m.Ping(s.t.Context()); err != nil {
			s.t.Error(err)
		}
		if err := m.Stop(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		if err := m.Ping(s.t.Context()); sandbox.CodeOf(err) != sandbox.Lost {
			s.t.Errorf("a ping after its end: %v", err)
		}
	}},
}
