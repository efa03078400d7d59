package firecracker

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/vmm"
)

// release is a version of Firecracker.
type release struct{ major, minor, patch int }

func (r release) before(o release) bool {
	return r.major < o.major || r.major == o.major && (r.minor < o.minor || r.minor == o.minor && r.patch < o.patch)
}

func (r release) String() string { return fmt.Sprintf("%d.%d.%d", r.major, r.minor, r.patch) }

// holes are published ones, from the first version to before the one that mends it.
var holes = []struct {
	name          string
	first, mended release
	what          string
}{
	{"CVE-2026-1386", release{0, 0, 0}, release{1, 13, 2}, "the jailer follows links in folders that were made before it; outpost makes them anew, as root's alone"},
	{"CVE-2026-1386", release{1, 14, 0}, release{1, 14, 1}, "the jailer follows links in folders that were made before it; outpost makes them anew, as root's alone"},
	{"CVE-2026-5747", release{1, 13, 0}, release{1, 14, 4}, "a guest writes outside of its memory by virtio over PCI, which outpost leaves off"},
	{"CVE-2026-5747", release{1, 15, 0}, release{1, 15, 1}, "a guest writes outside of its memory by virtio over PCI, which outpost leaves off"},
}

// oldest is the first whose API has all that is asked of it: VMGenID, which tells a restored guest that it is another, came with 1.8, and
// snapshots without a note of their own for it with 1.10.
var oldest = release{1, 10, 0}

// best is what to install, without a published hole.
const best = "1.15.1 or later"

var version = regexp.MustCompile(`v(\d+)\.(\d+)\.(\d+)`)

// Probe implements vmm.Monitor.
func (m *Monitor) Probe(ctx context.Context) vmm.Report {
	program, r := found(ctx, "firecracker", m.program)
	jailer, j := found(ctx, "jailer", m.jailer)
	if program.OK && jailer.OK && r != j {
		jailer.OK, jailer.Mend = false, "install the jailer of firecracker "+r.String()
	}
	return vmm.NewReport(r.String(), program, jailer, published(r), vmm.CheckKVM(host.TryKVM))
}

func found(ctx context.Context, name, path string) (vmm.Check, release) {
	x := vmm.Check{Name: name, Required: true, Mend: fmt.Sprintf("install %s %s, or name it by engines.microvm.%s", name, best, name)}
	if path == "" {
		x.Found = "not in PATH"
		return x, release{}
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	v := version.FindStringSubmatch(string(out))
	if err != nil || v == nil {
		x.Found = fmt.Sprintf("%s does not say its version: %v", path, err)
		return x, release{}
	}
	var r release
	for i, n := range []*int{&r.major, &r.minor, &r.patch} {
		*n, _ = strconv.Atoi(v[i+1])
	}
	x.Found, x.OK = path+" "+r.String(), !r.before(oldest)
	return x, r
}

// published warns of a version with published holes.
func published(r release) vmm.Check {
	x := vmm.Check{Name: "published holes", OK: true, Found: "none that outpost knows of", Mend: "install firecracker " + best}
	if r == (release{}) {
		x.OK, x.Found = false, "the version is not known"
		return x
	}
	var all []string
	for _, h := range holes {
		if !r.before(h.first) && r.before(h.mended) {
			all = append(all, h.name+": "+h.what)
		}
	}
	if len(all) > 0 {
		x.OK, x.Found = false, strings.Join(all, "; ")
	}
	return x
}

var _ vmm.Monitor = (*Monitor)(nil)
