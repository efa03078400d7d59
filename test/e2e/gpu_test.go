package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"outpost.run/outpost/sandbox"
)

// harmless is a CDI specification of devices that do nothing: /dev/null and /dev/zero under other names.
const harmless = `
cdiVersion: "0.6.0"
kind: example.com/gpu
containerEdits:
  env: [FAKE_DRIVER=1]
  mounts:
    - {hostPath: DIR/libfake.txt, containerPath: /usr/lib/fake/libfake.txt, options: [ro, bind]}
  hooks:
    - {hookName: createContainer, path: /usr/bin/nvidia-ctk, args: [nvidia-ctk, hook, create-symlinks, --link, "libfake.txt::/usr/lib/fake/link.txt"]}
devices:
  - {name: "0", containerEdits: {deviceNodes: [{path: /dev/fake0, hostPath: /dev/null}], env: [FAKE_0=here]}}
  - {name: "1", containerEdits: {deviceNodes: [{path: /dev/fakes/one, hostPath: /dev/zero}]}}
  - {name: hooked, containerEdits: {deviceNodes: [{path: /dev/fake2, hostPath: /dev/null}], hooks: [{hookName: createRuntime, path: /bin/sh, args: [sh, -c, "touch DIR/ran"]}]}}
`

func gpuServer(t *testing.T) (*server, string) {
	t.Helper()
	onThisHost(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"fake.yaml": strings.ReplaceAll(harmless, "DIR", dir), "libfake.txt": "a driver's file\n",
		"outpost.yaml": "gpus: {FAKE: [example.com/gpu=0, example.com/gpu=1], HOOKED: [example.com/gpu=hooked]}\ncdi_dirs: [" + dir + "]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return newServer(t, "--config", filepath.Join(dir, "outpost.yaml")), dir
}

func withGPU(asked string, mode sandbox.Mode) sandbox.CreateRequest {
	return sandbox.CreateRequest{Language: new("python"), Mode: new(string(mode)), ResourceLimits: &sandbox.LimitsRequest{GPU: new(asked)}}
}

func TestGPUsAreOneSandboxesAlone(t *testing.T) {
	s, dir := gpuServer(t)
	seen := `
import os
print(sorted(n for n in os.listdir("/dev") if n.startswith("fake")), os.environ.get("FAKE_DRIVER"), os.environ.get("FAKE_0"))
if os.path.exists("/dev/fake0"): open("/dev/fake0", "w").write("taken")
if os.path.exists("/dev/fakes/one"): assert open("/dev/fakes/one", "rb").read(3) == bytes(3)
if os.environ.get("FAKE_DRIVER"):
	assert open("/usr/lib/fake/link.txt").read() == "a driver's file\n"
	try: open("/usr/lib/fake/libfake.txt", "w"); print("the driver's file can be written to")
	except OSError: pass
`
	if out := clean(t, s.python(t, s.box(t, sandbox.CreateRequest{}).ID, seen)); out != "[] None None" {
		t.Errorf("without a GPU: %s", out)
	}
	both := s.box(t, withGPU("FAKE:2", sandbox.Stateful))
	if both.ResourceLimits.GPU == nil || *both.ResourceLimits.GPU != "FAKE:2" {
		t.Errorf("created with %v", both.ResourceLimits.GPU)
	}
	if out := clean(t, s.python(t, both.ID, seen)); out != "['fake0', 'fakes'] 1 here" {
		t.Errorf("with both: %s", out)
	}
	refused := func(asked string, code sandbox.Code, says string) {
		t.Helper()
		if _, err := s.Create(t.Context(), withGPU(asked, sandbox.Ephemeral)); sandbox.CodeOf(err) != code || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %s that says %q", asked, err, code, says)
		}
	}
	refused("FAKE:1", sandbox.GPUUnavailable, "FAKE: 0 of 2 free")
	refused("T4:1", sandbox.GPUUnavailable, "FAKE: 0 of 2 free, HOOKED: 1 of 1 free")
	refused("HOOKED:1", sandbox.NotSupported, "specification")
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("a hook of a specification was run")
	}
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	refused("FAKE:1", sandbox.GPUUnavailable, "FAKE: 0 of 2 free")
	for _, do := range []func(context.Context, string) (sandbox.Sandbox, error){s.Stop, s.Start} {
		if _, err := do(t.Context(), both.ID); err != nil {
			t.Fatal(err)
		}
	}
	if out := clean(t, s.python(t, both.ID, seen)); out != "['fake0', 'fakes'] 1 here" {
		t.Errorf("after kill, stop and start: %s", out)
	}
	if err := s.Delete(t.Context(), both.ID); err != nil {
		t.Fatal(err)
	}
	one := s.box(t, withGPU("FAKE:1", sandbox.Ephemeral))
	for range 2 {
		if out := clean(t, s.python(t, one.ID, seen)); out != "['fake0'] 1 here" {
			t.Errorf("with one: %s", out)
		}
	}
	if out, err := s.leaks(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestGPUsAskedForAtOnceAreGivenOnce(t *testing.T) {
	s, _ := gpuServer(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	had := 0
	for range 6 {
		all.Go(func() {
			_, err := s.Create(t.Context(), withGPU("FAKE:1", sandbox.Ephemeral))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				had++
			} else if sandbox.CodeOf(err) != sandbox.GPUUnavailable {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if had != 2 {
		t.Errorf("%d sandboxes have two devices", had)
	}
}
