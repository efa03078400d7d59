package node_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"

	"outpost.run/outpost/internal/compiled"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/internal/node"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/service/runtimepipe"
	"outpost.run/outpost/internal/service/runtimetest"
)

// TestMain enters a mount namespace of its own: nothing here may mount in the host's.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		if err := host.EnterPrivateMounts(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// install is one installation of a node on the container engine.
type install struct {
	t      *testing.T
	images *image.Store
	spared []string // images that are never pruned
	budget int64    // of the store; 0: none
	pool   node.PoolBounds
	dir    string
	engine *container.Engine // of the last start
	kept   *compiled.Store   // compiled programs; nil: none are kept
	wrap   func(engine.Engine) engine.Engine
}

// newInstall skips where the host can't run the engine, with the reason that Probe gives.
func newInstall(t *testing.T) *install {
	t.Helper()
	for _, c := range container.Probe(t.Context()).Checks {
		if c.Required && !c.OK {
			t.Skipf("%s: %s; %s", c.Name, c.Found, c.Mend)
		}
	}
	base := "/var/tmp"
	if dir := os.Getenv("OUTPOST_TEST_DATA"); dir != "" {
		base = dir
	}
	dir, err := os.MkdirTemp(base, "outpost-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing is mounted there but in our own namespace, and every case checks that it is gone
	i := &install{t: t, dir: dir, spared: []string{imagetest.Python, imagetest.Bash, imagetest.Node, imagetest.Go, imagetest.Rust}}
	if err := os.WriteFile(dir+"/installation", []byte(i.id()), 0o600); err != nil { // by which its host ids stay its own
		t.Fatal(err)
	}
	i.images, err = image.Open(imagetest.Dir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.images.Close)
	return i
}

func (i *install) id() string { return "test" + i.dir[len(i.dir)-6:] }

// open is a daemon's start.
func (i *install) open() *node.Node {
	i.t.Helper()
	if i.engine != nil {
		i.engine.Close()
	}
	var err error
	i.engine, err = container.Open(container.Options{Kernel: host.New(), DataDir: i.dir, Installation: i.id()})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(i.engine.Close)
	log := slog.New(slog.NewTextHandler(i.t.Output(), nil))
	wires, err := network.Open(network.Options{Log: log, Interface: engine.EgressInterface, Bind: netip.MustParseAddr("127.0.0.1"), First: 32000, Last: 32099})
	if err != nil {
		i.t.Fatal(err)
	}
	e := engine.Engine(i.engine)
	if i.wrap != nil {
		e = i.wrap(e)
	}
	return node.New(node.Config{Engine: e, Images: i.images, Default: i.spared, Budget: i.budget, Network: wires, Pool: i.pool, Compiled: i.kept, Log: log})
}

// left is what of the installation is on the host.
func (i *install) left() []string {
	i.t.Helper()
	handles, err := i.engine.List(i.t.Context())
	if err != nil {
		i.t.Error(err)
	}
	var names []string
	for _, h := range handles {
		if h.SandboxID == engine.Pooled { // TestPoolLeavesNothing
			continue
		}
		names = append(names, h.ID+" of "+h.SandboxID)
	}
	return names
}

// subject is a node, reached in the way that the argument says.
func subject(pool node.PoolBounds, reach func(*testing.T, *node.Node) service.Runtime) runtimetest.Subject {
	var now *install
	return runtimetest.Subject{
		Open: func(t *testing.T) service.Runtime {
			now = newInstall(t)
			now.pool = pool
			return reach(t, now.open())
		},
		Reopen: func(t *testing.T) service.Runtime { return reach(t, now.open()) },
		Left:   func(*testing.T) []string { return now.left() },
		Python: imagetest.Python, Bash: imagetest.Bash,
	}
}

func TestNode(t *testing.T) {
	runtimetest.Run(t, subject(node.PoolBounds{}, func(_ *testing.T, n *node.Node) service.Runtime { return n }))
}

func TestNodeWithAPool(t *testing.T) {
	runtimetest.Run(t, subject(bounds, func(_ *testing.T, n *node.Node) service.Runtime { return n }))
}

var bounds = node.PoolBounds{MaxIdle: 8, MaxBytes: 512 << 20}

func TestNodeThroughAPipe(t *testing.T) {
	runtimetest.Run(t, subject(node.PoolBounds{}, func(t *testing.T, n *node.Node) service.Runtime { client, _ := piped(t, n); return client }))
}

// piped reaches a node through a pipe; the channel gives what Serve said at its end.
func piped(t *testing.T, n *node.Node) (*runtimepipe.Client, <-chan error) {
	t.Helper()
	here, there := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- runtimepipe.Serve(there, n); close(ended) }()
	client := runtimepipe.New(here)
	t.Cleanup(func() {
		_ = client.Hangup()
		if err := <-ended; err != nil {
			t.Error("the pipe ended:", err)
		}
	})
	return client, ended
}
