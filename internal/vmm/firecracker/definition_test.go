package firecracker

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"outpost.run/outpost/internal/vmm"
)

// asked is one request as it went over the socket.
type asked struct{ method, path, body string }

// everythingAsked lets a machine ask all that it ever asks of a monitor, which here only listens.
func everythingAsked(t *testing.T) []asked {
	t.Helper()
	dir := t.TempDir()
	var all []asked
	l, err := net.Listen("unix", filepath.Join(dir, apiSocket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			all = append(all, asked{r.Method, r.URL.Path, string(b)})
			w.WriteHeader(http.StatusNoContent)
		}))
	}()
	file := func(name string) string {
		path := filepath.Join(dir, "of-the-host-"+name)
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := vmm.Config{MemoryMB: 128, VCPUs: 2, Kernel: file("kernel"), Initrd: file("initrd"), UID: os.Getuid(), GID: os.Getgid(),
		Drives: []vmm.Drive{{ID: "drive0", Path: file("layer"), ReadOnly: true}, {ID: "drive1", Path: file("disk"), Durable: true}, {ID: "drive2", Path: file("other")}}}
	machines := func(root string) *machine {
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		return &machine{c: c, root: root, api: newClient(filepath.Join(dir, apiSocket))}
	}
	v := machines(filepath.Join(dir, "booted"))
	if err := v.boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := v.SetDrive(t.Context(), "drive0", file("another-layer")); err != nil {
		t.Fatal(err)
	}
	snapshot := filepath.Join(dir, "snapshot")
	if err := os.Mkdir(snapshot, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{memoryName, stateName} {
		if err := os.WriteFile(filepath.Join(v.root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() == 0 {
		if err := v.Snapshot(t.Context(), snapshot); err != nil {
			t.Fatal(err)
		}
		c.Restore = snapshot
		if err := machines(filepath.Join(dir, "restored")).restore(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// definition is what the test reads of Firecracker's API definition, Swagger 2.0.
type definition struct {
	Paths map[string]map[string]struct {
		Parameters []struct {
			In     string
			Schema schema
		}
	}
	Definitions map[string]schema
}

type schema struct {
	Ref        string `yaml:"$ref"`
	Type       string
	Required   []string
	Properties map[string]schema
	Enum       []string
	Minimum    *float64
	Maximum    *float64
}

func TestWhatIsAskedIsInTheDefinitions(t *testing.T) {
	files, _ := filepath.Glob("../../../../shared/firecracker/*.yaml")
	if len(files) == 0 {
		t.Skip("Firecracker's API definitions are not beside this repository")
	}
	all := everythingAsked(t)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d definition
		if err := yaml.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		for _, x := range all {
			if fault := d.check(x); fault != "" {
				t.Errorf("%s: %s %s %s: %s", filepath.Base(file), x.method, x.path, x.body, fault)
			}
		}
		bad := asked{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"v","other":1}`}
		if d.check(bad) == "" || d.check(asked{"PUT", "/vsock", `{"guest_cid":"3","uds_path":"v"}`}) == "" || d.check(asked{"PUT", "/vsock", `{"guest_cid":3}`}) == "" {
			t.Error("the check lets everything pass")
		}
	}
	if len(all) < 8 {
		t.Errorf("only %d requests were seen", len(all))
	}
}

func (d *definition) check(x asked) string {
	for path, operations := range d.Paths {
		operation, ok := operations[strings.ToLower(x.method)]
		if !ok || !fits(path, x.path) {
			continue
		}
		for _, p := range operation.Parameters {
			if p.In == "body" {
				var v any
				if err := json.Unmarshal([]byte(x.body), &v); err != nil {
					return err.Error()
				}
				return d.checkValue(p.Schema, v)
			}
		}
		return ""
	}
	return "there is no such call"
}

// fits: /drives/{drive_id} fits /drives/drive0.
func fits(template, path string) bool {
	a, b := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(a, b, func(a, b string) bool { return a == b || strings.HasPrefix(a, "{") && b != "" })
}

func (d *definition) checkValue(s schema, v any) string {
	if name, is := strings.CutPrefix(s.Ref, "#/definitions/"); is {
		return d.checkValue(d.Definitions[name], v)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range s.Required {
			if v[name] == nil {
				return name + " is missing"
			}
		}
		for name, value := range v {
			p, ok := s.Properties[name]
			if !ok {
				return name + " is not known"
			}
			if fault := d.checkValue(p, value); fault != "" {
				return name + ": " + fault
			}
		}
	case string:
		if s.Type != "string" || len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			return fmt.Sprintf("%q is no %s of %v", v, s.Type, s.Enum)
		}
	case bool:
		if s.Type != "boolean" {
			return "is no " + s.Type
		}
	case float64:
		if s.Type != "integer" || v != math.Trunc(v) || s.Minimum != nil && v < *s.Minimum || s.Maximum != nil && v > *s.Maximum {
			return fmt.Sprintf("%v is no %s of that range", v, s.Type)
		}
	}
	return ""
}
