package gpu

import (
	"os"
	"path/filepath"
	"testing"

	"outpost.run/outpost/sandbox"
)

func testPool(t *testing.T) (*Pool, string) {
	t.Helper()
	specs, dir := t.TempDir(), filepath.Join(t.TempDir(), "gpus")
	text := "cdiVersion: \"0.6.0\"\nkind: example.com/gpu\ndevices:\n" +
		"  - {name: a, containerEdits: {deviceNodes: [{path: /dev/a, hostPath: /dev/null}]}}\n" +
		"  - {name: b, containerEdits: {deviceNodes: [{path: /dev/b, hostPath: /dev/null}]}}\n"
	if err := os.WriteFile(filepath.Join(specs, "x.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := NewPool(map[string][]string{"T4": {"example.com/gpu=a", "example.com/gpu=b"}}, NewCatalog(specs), dir)
	if err != nil {
		t.Fatal(err)
	}
	return p, dir
}

func TestADeviceIsTakenOnceAndStaysOverARestart(t *testing.T) {
	p, _ := testPool(t)
	if err := p.Take("sb_1", "T4:1"); err != nil {
		t.Fatal(err)
	}
	p, err := NewPool(p.kinds, p.catalog, p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Take("sb_2", "T4:2"); sandbox.CodeOf(err) != sandbox.GPUUnavailable {
		t.Errorf("two of one that is left: %v", err)
	}
	if err := p.Take("sb_2", "T4:1"); err != nil {
		t.Error(err)
	}
	if ds, err := p.Devices("sb_1"); err != nil || len(ds) != 1 || len(ds[0].Nodes) != 1 {
		t.Errorf("devices: %+v, %v", ds, err)
	}
	if err := p.Free("sb_1"); err != nil {
		t.Fatal(err)
	}
	if err := p.Take("sb_3", "T4:1"); err != nil {
		t.Errorf("one that was freed: %v", err)
	}
}

func TestAnEntryThatTellsNoOwnerKeepsItsDeviceTaken(t *testing.T) {
	p, _ := testPool(t)
	if err := p.Take("sb_1", "T4:1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("example.com/gpu=a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Take("sb_2", "T4:2"); sandbox.CodeOf(err) != sandbox.GPUUnavailable {
		t.Errorf("a device whose owner is not known was given away: %v", err)
	}
	if all, err := p.Holders(); err != nil || len(all) != 0 {
		t.Errorf("holders that a sweep would free: %v, %v", all, err)
	}
}
