package container_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/sandbox"
)

func TestMain(m *testing.M) {
	if err := host.EnterPrivateMounts(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestSmoke(t *testing.T) {
	layers := imagetest.Layers(t, imagetest.Python)
	dir, err := os.MkdirTemp("/var/tmp", "outpost-smoke")
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(dir+"/installation", []byte("smoke"), 0o600)
	e, err := container.Open(container.Options{Kernel: host.New(), DataDir: dir, Installation: "smoke"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		t0 := time.Now()
		m, err := e.Start(t.Context(), engine.MachineSpec{ID: fmt.Sprintf("m_00000000000%d", i), SandboxID: "sb_0", Layers: layers,
			Limits: sandbox.Limits{MemoryMB: 256, CPUCores: 1, DiskMB: 64, Pids: 64}, Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard}, WorkingDir: "/workspace", Program: "python3"})
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		t.Logf("%+v", m.Isolation())
		x, err := m.Park(t.Context(), engine.ExecSpec{ID: "exec_1", User: "sandbox", Limits: sandbox.Limits{MemoryMB: 256, CPUCores: 1, DiskMB: 64, Pids: 64}})
		if err != nil {
			t.Fatal(err)
		}
		var out, errb bytes.Buffer
		code := "import os; print(os.getpid(), os.getuid(), os.getcwd(), os.listdir('/'), os.listdir('/dev'))\nprint(open('/proc/self/mountinfo').read())\nprint(open('/proc/self/cgroup').read(), os.listdir('/proc'), os.cpu_count())"
		if i > 0 {
			code = "print(1)"
		}
		exit, _, err := x.Run(agent.Run{Interpreter: []string{"python3"}, FileName: "main.py", Code: &code, Dir: "/workspace", MaxOutput: 1 << 20},
			agent.Feed{Stdout: &out, Stderr: &errb, Started: func() {}, Exited: func() {}})
		t2 := time.Now()
		t.Logf("%+v %v\n%s\n%s", exit, err, out.String(), errb.String())
		u, oom := x.Usage()
		t.Log(u, oom)
		x.Close()
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		t.Log("start", t1.Sub(t0), "exec", t2.Sub(t1), "stop", time.Since(t2))
	}
	l, err := e.List(t.Context())
	t.Log(l, err)
}
