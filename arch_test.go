// Package outpost_test keeps the cut of the project: which room may import which.
package outpost_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "outpost.run/outpost"

// room is a package, by its path below the module, and what it may import of ours.
type room struct {
	imports []string // "…/*" stands for everything below
	why     string   // said with a failure
	stdOnly bool     // and nothing of others
	planned bool     // not there yet; a row that is planned and there loses the mark
}

const (
	entrance  = "it wires the rooms together"
	lowest    = "upper rooms import lower ones, never the reverse"
	oneWay    = "the use cases know interfaces, not who implements them"
	anyClient = "clients take the vocabulary and nothing of the server"
	testing_  = "a tool of the tests"
	asAnybody = "an example shows what anybody can do without our code"
)

// rooms is the table of ARCHITECTURE.md. A room without a row fails, and so does a row without a room.
var rooms = map[string]room{
	"sandbox":           {stdOnly: true, why: "every room may import the vocabulary"},
	"client":            {imports: []string{"sandbox"}, why: anyClient},
	"cmd/outpost":       {imports: []string{"client", "sandbox", "internal/*"}, why: entrance},
	"cmd/outpost-agent": {imports: []string{"internal/agent/guest", "internal/host"}, why: "the in-sandbox program stays small"},
	"cmd/outpost-guest": {imports: []string{"internal/engine/microvm/keeper", "internal/host/boot"}, why: "the first process of a guest stays small"},

	"internal/bench":               {imports: []string{"client", "sandbox", "internal/host", "internal/image"}, why: "what is measured is spoken to as clients do"},
	"internal/server":              {imports: []string{"internal/audit", "internal/metrics", "internal/service", "internal/policy", "internal/strict", "sandbox"}, why: "routes speak to use cases"},
	"internal/service/storetest":   {imports: []string{"internal/service", "sandbox"}, why: "the suite knows no store"},
	"internal/service/runtimetest": {imports: []string{"internal/service", "sandbox"}, why: "the suite knows no runtime"},
	"internal/service/runtimepipe": {imports: []string{"internal/service", "sandbox"}, why: "a runtime's other side knows no machines"},
	"internal/service":             {imports: []string{"internal/phase", "internal/policy", "internal/spool", "sandbox"}, why: oneWay},
	"internal/store/sqlitefile":    {why: "it knows files and migrations, and nothing of what is in them"},
	"internal/jobs":                {imports: []string{"internal/service", "internal/store/sqlitefile", "sandbox"}, why: oneWay},
	"internal/spool":               {why: "it keeps bytes, whatever they are"},
	"internal/metrics":             {imports: []string{"internal/pool", "internal/service", "sandbox"}, why: "what is measured is told to it, and it knows nobody who measures"},
	"internal/audit":               {stdOnly: true, why: "it keeps lines, whoever they are about"},
	"internal/phase":               {imports: []string{"sandbox"}, why: "every room may tell of its part of a call, and none knows who listens"},
	"internal/tracing":             {imports: []string{"internal/phase"}, why: "it sends spans, whatever they are of"},
	"internal/strict":              {imports: []string{"sandbox"}, why: "reading JSON says nothing of what it is for"},
	"internal/config":              {imports: []string{"internal/policy", "internal/strict", "sandbox"}, why: "the operator's word, read once"},
	"internal/policy":              {imports: []string{"sandbox"}, why: "pure functions"},
	"internal/store/sqlite":        {imports: []string{"internal/service", "internal/store/sqlitefile", "sandbox"}, why: oneWay},
	"internal/node": {imports: []string{"internal/service", "internal/engine", "internal/image", "internal/disk",
		"internal/network", "internal/gpu", "internal/agent", "internal/deps", "internal/pool", "internal/compiled", "internal/phase", "sandbox"}, why: "the runtime of one host"},

	"internal/deps": {imports: []string{"internal/agent", "internal/engine", "internal/image", "internal/index", "sandbox"},
		why: "installing knows machines and layers, not sandboxes"},
	"internal/compiled": {stdOnly: true, why: "a store of files, which knows no machines"},
	"internal/pool":     {why: "it keeps things ready, whatever they are"},
	"internal/index":    {imports: []string{"sandbox"}, why: "where packages come from, and nothing of who installs them"},

	"internal/engine":            {imports: []string{"internal/agent", "sandbox"}, why: "interfaces only"},
	"internal/engine/enginetest": {imports: []string{"internal/agent", "internal/engine", "sandbox"}, why: "the suite knows no engine"},
	"internal/engine/container": {imports: []string{"internal/engine", "internal/agent", "internal/cell", "internal/cell/filter",
		"internal/disk", "internal/host", "internal/host/netns", "internal/network/inside", "sandbox"}, why: lowest},
	"internal/engine/microvm": {imports: []string{"internal/agent", "internal/disk", "internal/engine", "internal/engine/microvm/link", "internal/host",
		"internal/host/netns", "internal/vmm", "sandbox"}, why: "what holds a program in a guest is the keeper's"},
	"internal/engine/microvm/link": {imports: []string{"internal/agent", "internal/engine", "sandbox"}, why: "both sides of the link know machines, and nothing of how they are made"},
	"internal/engine/microvm/keeper": {imports: []string{"internal/agent", "internal/engine", "internal/engine/container", "internal/engine/microvm/link", "internal/host", "internal/host/boot"},
		why: "the guest's side"},
	"internal/vmm":                 {imports: []string{"internal/host", "internal/host/netns"}, why: "monitors know files and processes, not machines of sandboxes"},
	"internal/vmm/firecracker":     {imports: []string{"internal/host", "internal/vmm"}, why: lowest},
	"internal/vmm/qemu":            {imports: []string{"internal/host", "internal/vmm", "sandbox"}, why: lowest},
	"internal/guestos":             {imports: []string{"internal/image", "sandbox"}, why: lowest},
	"internal/host/boot":           {why: "raw kernel calls of a guest's first process, which nobody else may make"},
	"internal/cell/filter":         {imports: []string{"sandbox"}, why: lowest},
	"internal/cell":                {imports: []string{"internal/cell/filter", "internal/host", "sandbox"}, why: lowest},
	"internal/agent":               {imports: []string{"sandbox"}, why: lowest},
	"internal/agent/guest":         {imports: []string{"internal/agent", "internal/cell", "internal/host", "sandbox"}, why: lowest},
	"internal/image":               {imports: []string{"internal/host", "sandbox"}, why: lowest},
	"internal/image/imagetest":     {imports: []string{"internal/image"}, why: testing_},
	"internal/gpu":                 {imports: []string{"sandbox"}, why: lowest},
	"internal/disk":                {imports: []string{"internal/host", "sandbox"}, why: lowest},
	"internal/host":                {why: "the lowest room: raw kernel calls"},
	"internal/host/netns":          {imports: []string{"internal/host"}, why: "raw kernel calls that need a library the agent must not carry"},
	"internal/network":             {imports: []string{"internal/engine", "sandbox"}, why: "it knows the inside of a machine's network, not how that is reached"},
	"internal/network/inside":      {imports: []string{"internal/engine", "internal/host", "internal/host/netns", "sandbox"}, why: lowest},
	"internal/network/networktest": {imports: []string{"internal/host/netns"}, why: testing_},
	"internal/host/hosttest":       {imports: []string{"internal/host"}, why: "the only fake"},

	"examples/agent-tool/go": {stdOnly: true, why: asAnybody},

	"test/corpus":        {imports: []string{"client", "sandbox"}, why: testing_},
	"test/kernels":       {imports: []string{"test/kernels/cache", "test/kernels/plan", "internal/engine/microvm", "internal/guestos", "internal/image", "internal/image/imagetest"}, why: testing_},
	"test/kernels/cache": {imports: []string{"internal/guestos"}, why: testing_},
	"test/kernels/init":  {imports: []string{"test/kernels/plan"}, why: testing_},
	"test/kernels/plan":  {stdOnly: true, why: testing_},
	"test/summary":       {stdOnly: true, why: testing_},
}

// saysNothing are names under which anything would fit.
var saysNothing = []string{"util", "utils", "common", "helper", "helpers", "model", "models", "misc", "lib", "base", "shared"}

type listed struct {
	ImportPath string
	Standard   bool
	GoFiles    []string
	Imports    []string
}

// packages are those of this module with Go files that are no tests.
func packages(t *testing.T) map[string]listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Standard,GoFiles,Imports", "./...").Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	found := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			found[strings.TrimPrefix(p.ImportPath, module+"/")] = p
		}
	}
}

func TestRoomsImportOneWay(t *testing.T) {
	found := packages(t)
	for name, p := range found {
		r, ok := rooms[name]
		if !ok {
			t.Errorf("%s has no row in the table of rooms: give it one with its reason, or find the room it belongs to", name)
			continue
		}
		if r.planned {
			t.Errorf("%s is there: its row is planned no longer", name)
		}
		for _, imported := range p.Imports {
			ours, isOurs := strings.CutPrefix(imported, module+"/")
			switch {
			case isOurs && !r.allows(ours):
				t.Errorf("%s may not import %s: %s", name, ours, r.why)
			case !isOurs && r.stdOnly && strings.Contains(strings.SplitN(imported, "/", 2)[0], "."):
				t.Errorf("%s may import the standard library alone, not %s: %s", name, imported, r.why)
			}
		}
	}
	for name, r := range rooms {
		if _, ok := found[name]; !ok && !r.planned {
			t.Errorf("the row of %s is stale: there is no such room", name)
		}
	}
}

func (r room) allows(imported string) bool {
	return slices.ContainsFunc(r.imports, func(allowed string) bool {
		below, all := strings.CutSuffix(allowed, "*")
		return allowed == imported || all && strings.HasPrefix(imported, below)
	})
}

func TestNamesSaySomething(t *testing.T) {
	for name := range packages(t) {
		for _, part := range strings.Split(name, "/") {
			if slices.Contains(saysNothing, part) {
				t.Errorf("%s: %q says nothing; name the room by what it is", name, path.Base(part))
			}
		}
	}
}
