// Package node is the Runtime of one host: it keeps the machines of sandboxes, runs programs in them, and sees to it that
// nothing without an owner stays on the host.
package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/compiled"
	"outpost.run/outpost/internal/deps"
	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/gpu"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/network"
	"outpost.run/outpost/internal/pool"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Images are where machines' layers come from; *image.Store is one.
type Images interface {
	Get(ref string) (image.Image, bool)
	Ensure(ctx context.Context, ref string, progress func(image.Progress)) (image.Image, error)
	EnsureFor(ctx context.Context, by image.Asker, ref string, progress func(image.Progress)) (image.Image, error)
	Building(ref string) (image.Progress, bool)
	ByDigest(digest string) (image.Image, bool)
	List() ([]image.Info, error)
	MayUse(i image.Info, by image.Asker) bool
	Pin(owner string, img image.Image) error
	PinOf(owner string) (image.Image, bool)
	Unpin(owner string) error
	Pinned() ([]string, error)
	Prune(budget int64, spare image.Spare) ([]string, error)
}

// Node implements service.Runtime on one host.
type Node struct {
	engine   engines
	images   Images
	defaults map[string]bool // Config.Default
	budget   int64
	disks    *disk.Volumes
	net      *network.Network
	gpus     *gpu.Pool
	pool     *pool.Pool // of machines; nil: none
	chores   *chores
	starting chan struct{} // filled by machines that are being made
	log      *slog.Logger
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	ending   sync.WaitGroup // calls under way and machines that are being removed

	news news

	installer *deps.Installer // nil: no dependencies
	compiled  *compiled.Store // nil: each exec compiles its program

	mu        sync.Mutex
	using     map[string]int // layers of sandboxes that are no boxes yet
	boxes     map[string]*box
	wires     map[string]wire // by id of the machine
	making    map[string]bool // ids of sandboxes that are no boxes yet, and may have disks and ports
	machines  map[string]bool // ids of machines that have an owner, those being made included
	synced    bool
	closed    bool
	recovered chan struct{} // closed when Sync is through
}

// box is a sandbox on this node.
type box struct {
	spec service.SandboxSpec

	ended   chan struct{}  // closed when it is being deleted
	ends    sync.WaitGroup // machines of execs that are being removed
	settled settled
	calls   *semaphore.Weighted // to the agent, beside execs
	change  sync.Mutex          // taken by who stops, starts or deletes it

	mu        sync.Mutex
	image     image.Image
	devices   []gpu.Device
	machine   engine.Machine // stateful: the one; ephemeral: made ahead for the next exec; nil for none
	ahead     *agent.Warm    // the interpreter that runs in an ephemeral one's; nil: none
	remains   string         // the id of a stateful sandbox's ended machine, whose files stay until the sandbox is deleted
	isolation sandbox.Isolation
	health    sandbox.Health
	ports     []sandbox.Port // with their host ports
	published []*network.Published
	answers   engine.Machine // ephemeral: the one of the exec that its ports lead to
	running   map[*execution]bool
	status    sandbox.Status // Running, Stopped or LostNow
	gone      bool
}

func newBox(s service.SandboxSpec) *box {
	return &box{
		calls:   semaphore.NewWeighted(callsAtOnce),
		settled: settled{turn: make(chan struct{}, 1), keys: map[string]bool{}},
		spec:    s, ended: make(chan struct{}), running: map[*execution]bool{}, status: sandbox.Running, ports: s.Ports, health: sandbox.Health{Status: sandbox.HealthNone},
	}
}

// Config is what a Node stands on.
type Config struct {
	Engine  engine.Engine // of containers
	MicroVM microVM       // of machines with Security.JailerEnabled; nil: there are none
	Images  Images
	Default []string      // references of the languages' images: everyone's, and never pruned
	Budget  int64         // bytes of layers; 0: no limit
	Volumes *disk.Volumes // nil: sandboxes can't have a disk
	Network *network.Network
	GPUs    *gpu.Pool // nil: there are none
	Pool    PoolBounds
	// Compiled keeps compiled programs; nil: each exec compiles its own.
	Compiled *compiled.Store
	Log      *slog.Logger
	Watcher  Watcher // nil: nobody hears
}

// New makes a node; Sync must be called before anything else.
func New(c Config) *Node {
	n := &Node{engine: engines{container: c.Engine, microVM: c.MicroVM, watcher: c.Watcher, census: newCensus()}, images: c.Images, defaults: map[string]bool{}, budget: c.Budget, using: map[string]int{}, disks: c.Volumes, net: c.Network, wires: map[string]wire{}, gpus: c.GPUs, compiled: c.Compiled, log: c.Log, boxes: map[string]*box{}, machines: map[string]bool{}, making: map[string]bool{}, recovered: make(chan struct{})}
	n.ctx, n.stop = context.WithCancel(context.Background())
	for _, ref := range c.Default {
		n.defaults[image.Canonical(ref)] = true
	}
	if n.engine.watcher == nil {
		n.engine.watcher = unwatched{}
	}
	n.news.more = make(chan struct{}, 1)
	n.chores = newChores(n.ctx)
	n.starting = make(chan struct{}, 4*runtime.NumCPU())
	n.openPool(c.Pool)
	go n.sweepEvery(time.Minute)
	return n
}

var _ service.Runtime = (*Node)(nil)

func (n *Node) box(id string) (*box, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, ok := n.boxes[id]
	if !ok || b.isGone() {
		return nil, notFound()
	}
	return b, nil
}

func (b *box) isGone() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

func notFound() error {
	return sandbox.Errorf(sandbox.NotFound, nil, "no such sandbox")
}

func stopping() error {
	return sandbox.Errorf(sandbox.Lost, nil, "the server is stopping: try again in a moment")
}

// begin counts a call that uses machines; Close waits for it.
func (n *Node) begin() (done func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, stopping()
	}
	n.ending.Add(1)
	return n.ending.Done, nil
}

// bounded ends with ctx, after limit, and with Close.
func (n *Node) bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(n.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// own makes a machine id and keeps the sweep off it.
func (n *Node) own() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return "", stopping()
	}
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	id := "m_" + hex.EncodeToString(b)
	n.machines[id] = true
	return id, nil
}

func (n *Node) disown(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.machines, id)
}

// end removes a machine in the background; Close waits for it.
func (n *Node) end(m engine.Machine) { n.later(func() { n.endNow(m) }) }

// later runs f when the processors are free for it; Close waits for it.
func (n *Node) later(f func()) {
	n.ending.Add(1)
	n.chores.add(func() {
		defer n.ending.Done()
		f()
	})
}

func (n *Node) endNow(m engine.Machine) {
	if err := n.remove(m); err != nil {
		n.log.Error("a machine could not be removed; the sweep tries again", "machine", m.Handle().ID, "error", err)
	}
}

// remove ends a machine; what can't be removed is the sweep's.
func (n *Node) remove(m engine.Machine) error {
	defer n.disown(m.Handle().ID)
	n.disconnect(m)
	return m.Stop(context.Background())
}

// Close implements service.Runtime.
func (n *Node) Close(ctx context.Context, stopAll bool) error {
	n.mu.Lock()
	n.closed = true
	boxes := make([]*box, 0, len(n.boxes))
	for _, b := range n.boxes {
		boxes = append(boxes, b)
	}
	n.mu.Unlock()
	n.stop()
	if n.pool != nil {
		n.pool.Close()
	}
	for _, b := range boxes {
		b.mu.Lock()
		for x := range b.running {
			x.end(endLost)
		}
		m := b.machine
		if m != nil && (b.spec.Mode == sandbox.Ephemeral || stopAll) {
			b.machine = nil
			n.end(m)
		}
		b.mu.Unlock()
	}
	done := make(chan struct{})
	go func() { n.ending.Wait(); close(done) }()
	select {
	case <-done:
		for _, b := range boxes {
			n.unpublish(b)
		}
		n.hangUp()
		n.engine.Close()
		return nil
	case <-ctx.Done():
		return sandbox.Errorf(sandbox.Internal, ctx.Err(), "machines are still being removed")
	}
}
