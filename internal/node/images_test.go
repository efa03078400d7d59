package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// ownStore is a store of the test's own with the tests' images.
func (i *install) ownStore() (*image.Store, string) {
	i.t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(imagetest.Dir()), "store-")
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing is mounted in a store
	s, err := image.Open(dir)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(s.Close)
	for _, ref := range []string{imagetest.Python, imagetest.Bash} {
		lend(i.t, dir, ref)
	}
	return s, dir
}

// lend puts an image of the tests into another store, its layers as links.
func lend(t *testing.T, dir, ref string) {
	t.Helper()
	layers := imagetest.Layers(t, ref)
	name := refFile(t, ref)
	text, err := os.ReadFile(filepath.Join(imagetest.Dir(), "refs", name))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "refs", name), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		if err := os.Link(layer, filepath.Join(dir, "layers", filepath.Base(layer))); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
}

func TestTheSweepKeepsTheStoreUnderItsBudgetAndSparesWhatIsInUse(t *testing.T) {
	now := newInstall(t)
	store, dir := now.ownStore()
	now.images, now.spared, now.budget = store, []string{imagetest.Bash}, 1
	n := now.open()
	defer func() {
		if err := n.Close(t.Context(), true); err != nil {
			t.Error(err)
		}
	}()
	if _, err := n.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	// Sync has swept: without a sandbox, the language's own image alone stays.
	refs := func() (all []string) {
		infos, err := store.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range infos {
			all = append(all, i.Ref)
		}
		return all
	}
	if got := refs(); !slices.Equal(got, []string{imagetest.Bash}) {
		t.Fatalf("after the first sweep: %v", got)
	}
	limits := sandbox.Limits{MemoryMB: 64, CPUCores: 1, TimeoutMS: 60_000, DiskMB: 16, Pids: 64}
	for _, mode := range []sandbox.Mode{sandbox.Ephemeral, sandbox.Stateful} {
		spec := service.SandboxSpec{
			ID: sandbox.NewID(sandbox.SandboxPrefix), Namespace: "default", Language: "python", Image: imagetest.Python, Mode: mode, Limits: limits, Operator: true,
			WorkingDir: "/workspace", Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard},
			Network: sandbox.Network{Egress: "none"}, CreateWait: time.Minute, Started: true,
		}
		lend(t, dir, imagetest.Python)
		if _, err := n.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		n.SweepImages()
		if got := refs(); !slices.Equal(got, []string{imagetest.Bash}) {
			t.Errorf("%s: after a sweep: %v", mode, got)
		}
		for range 2 {
			code := "print('here')"
			var out strings.Builder
			o, err := n.Exec(t.Context(), spec.ID, service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Code: &code, Limits: limits, MaxOutputBytes: 1 << 20}, service.Streams{Stdout: &out, Stderr: &out})
			if err != nil || o.ExitCode != 0 || out.String() != "here\n" {
				t.Errorf("%s: an exec when its image was pruned: %v, %+v, %s", mode, err, o, out.String())
			}
		}
		if err := n.Delete(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		n.SweepImages()
		layers, err := fs.Glob(os.DirFS(dir), "layers/*")
		if err != nil || len(layers) != 1 {
			t.Errorf("%s: when it is deleted: layers %v, %v", mode, layers, err)
		}
		info, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(info)) {
			if strings.Contains(line, now.dir) && strings.Contains(line, "deleted") {
				t.Errorf("%s: a layer that is gone is still mounted: %s", mode, line)
			}
		}
	}
}

// refFile is the name under which the store keeps a reference.
func refFile(t *testing.T, ref string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(imagetest.Dir(), "refs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), `"`+ref+`"`) {
			return filepath.Base(p)
		}
	}
	t.Fatalf("no reference file of %s", ref)
	return ""
}
