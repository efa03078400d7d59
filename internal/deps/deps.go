// Package deps installs what a program needs, in a machine of its own that has no way out but a package index, and keeps
// it as a read-only layer. What an installer runs is hostile code: it is held like any program, its layer is used for
// the namespace alone that asked, and nothing that it says is believed beyond that.
package deps

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/index"
	"outpost.run/outpost/sandbox"
)

// Machines are where installations run.
type Machines interface {
	Start(ctx context.Context, spec engine.MachineSpec) (engine.Machine, error)
	End(m engine.Machine)
}

// Images are what installations start from; *image.Store is one.
type Images interface {
	Get(ref string) (image.Image, bool)
	EnsureFor(ctx context.Context, by image.Asker, ref string, progress func(image.Progress)) (image.Image, error)
}

// Layers keep what was installed; *image.Store is one.
type Layers interface {
	KeepTar(ctx context.Context, key string, tar io.Reader, b image.Bounds) (layerPath string, err error)
	Made(key string) (layerPath string, ok bool)
}

// Options are what an Installer needs.
type Options struct {
	Machines Machines
	Images   Images
	Layers   Layers
	Dir      string // where what was resolved is noted
	Host     index.Host
	Indexes  map[index.Manager]string // the operator's; "" for the host's own
	Log      *slog.Logger
}

// Installer installs dependencies, each set once for all who ask at the same time.
type Installer struct {
	Options
	turns chan struct{} // installations under way

	defaults defaults
	mu       sync.Mutex
	flights  map[string]*flight
	busy     map[string]chan struct{} // one installation at a time for a namespace
}

const (
	// installTime is how long one installation may take from its turn on.
	installTime = 10 * time.Minute
	// freshFor is how long the answer to what has no exact version holds.
	freshFor = 600 * time.Second
)

// New makes an installer.
func New(o Options) (*Installer, error) {
	if err := openNotes(o.Dir); err != nil {
		return nil, err
	}
	return &Installer{Options: o, defaults: defaults{turn: make(chan struct{}, 1)}, turns: make(chan struct{}, min(max(2, runtime.NumCPU()), 8)), flights: map[string]*flight{}, busy: map[string]chan struct{}{}}, nil
}

// Request is what a program needs.
type Request struct {
	Namespace string
	Language  string // whose manager is meant
	Image     image.Image
	Deps      []string // checked by policy, none of them apt's
	MicroVM   bool     // what packages run when they are installed is held as their sandbox is
}

// Set is what was installed.
type Set struct {
	Key      string // the same for what is the same
	Layer    string // the EROFS file
	Manager  index.Manager
	At       string      // where programs find it
	Bin      string      // the directory below At or Home with programs; "" for none
	Paths    [][2]string // variables that are lists, and what comes before the program's own
	Home     string      // where a stateful sandbox keeps it, on its own disk
	Resolved []string    // name and version of each, in the manager's spelling
}

// Install gives the set of r, installing it where it is not kept. ctx is the caller's: who goes away waits no longer, and
// when none is left the installation ends.
//
// Errors: DepsFailed, with the installer's last lines; NotSupported, with what mends it; Capacity; Lost; ctx's.
func (in *Installer) Install(ctx context.Context, r Request) (Set, error) {
	c, err := in.recipe(r)
	if err != nil {
		return Set{}, err
	}
	key := in.key(r, c)
	if set, ok := in.kept(key, c.exact(r.Deps)); ok {
		return set, nil
	}
	f := in.join(key, r, c)
	select {
	case <-f.done:
		return f.set, f.err
	case <-ctx.Done():
		in.leave(key, f)
		return Set{}, ctx.Err()
	}
}

// key names a set by all that it depends on, its namespace too: no tenant gets what another's packages have done.
func (in *Installer) key(r Request, c plan) string {
	list := slices.Clone(r.Deps)
	slices.Sort(list)
	b, _ := json.Marshal([]any{"deps 1", r.Namespace, r.Image.Digest, c.manager, c.upstream.Name(), c.version, slices.Compact(list)}) // strings and a number alone
	sum := sha256.Sum256(b)
	return "deps-" + hex.EncodeToString(sum[:])
}

// flight is one installation and those who wait for it.
type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiting int
	set     Set
	err     error
}

func (in *Installer) join(key string, r Request, c plan) *flight {
	in.mu.Lock()
	defer in.mu.Unlock()
	if f, ok := in.flights[key]; ok {
		f.waiting++
		return f
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &flight{done: make(chan struct{}), cancel: cancel, waiting: 1}
	in.flights[key] = f
	go func() {
		defer cancel()
		f.set, f.err = in.inTurn(ctx, key, r, c)
		in.mu.Lock()
		if in.flights[key] == f {
			delete(in.flights, key)
		}
		in.mu.Unlock()
		close(f.done)
	}()
	return f
}

// leave gives up waiting; the last one ends the installation, and who comes next begins anew.
func (in *Installer) leave(key string, f *flight) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		if in.flights[key] == f {
			delete(in.flights, key)
		}
	}
}

// builder asks for images that are made of packages: it is ours to say which, and the namespace's share of builds.
func builder(namespace string) image.Asker { return image.Asker{Namespace: namespace, Host: true} }

// turn waits for the namespace's turn and the server's.
func (in *Installer) turn(ctx context.Context, namespace string) (done func(), err error) {
	in.mu.Lock()
	own, ok := in.busy[namespace]
	if !ok {
		own = make(chan struct{}, 1)
		in.busy[namespace] = own
	}
	in.mu.Unlock()
	select {
	case own <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case in.turns <- struct{}{}:
		return func() { <-in.turns; <-own }, nil
	case <-ctx.Done():
		<-own
		return nil, ctx.Err()
	}
}

func (in *Installer) inTurn(ctx context.Context, key string, r Request, c plan) (set Set, err error) {
	defer func() { // what an installation leaves is read by much code
		if p := recover(); p != nil {
			in.Log.Error("an installation panicked", "namespace", r.Namespace, "panic", p, "stack", string(debug.Stack()))
			set, err = Set{}, failed("what was installed can't be read")
		}
	}()
	// First the image, which may have to be built: who waits for that takes nobody's turn.
	if r.Image, err = in.imageFor(ctx, r, c.packages); err != nil {
		return Set{}, err
	}
	done, err := in.turn(ctx, r.Namespace)
	if err != nil {
		return Set{}, err
	}
	defer done()
	limited, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	set, err = in.install(limited, key, r, c)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = sandbox.Errorf(sandbox.DepsFailed, err, "the installation took longer than %d minutes: name fewer dependencies at once, or some that need no compiling", int(installTime.Minutes()))
	}
	return set, err
}

// failed is the refusal of a dependency, with the installer's last lines.
func failed(output string) error {
	e := sandbox.Errorf(sandbox.DepsFailed, nil, "the dependencies could not be installed: %s", LastLines(output))
	e.Details = []sandbox.Detail{{Field: "deps", Reason: "can't be installed; the message has the installer's last lines"}}
	return e
}

// Exact says whether each of them can only ever be one version.
func (c plan) exact(deps []string) bool {
	return !slices.ContainsFunc(deps, func(d string) bool { return !c.pinned(d) })
}
