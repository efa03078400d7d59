// Package engine says what an isolation technology does for a node: it makes, finds, stops and removes machines. All that
// happens inside a machine goes through the agent's protocol. enginetest is the suite that every engine passes.
package engine

import (
	"context"
	"io"
	"net"
	"net/netip"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// Engine makes machines of one isolation technology. All methods are safe for concurrent use.
type Engine interface {
	// Probe says what this host lets the engine enforce, and what mends the rest.
	Probe(ctx context.Context) Capabilities
	// Start makes one machine and returns when its agent has furnished it and its first process waits. On error nothing
	// of spec.ID is left, or List shows what is. ctx bounds the making, not the machine's life.
	//
	// Errors: UserNotFound, LanguageRuntimeMissing, Invalid (a directory), Capacity (the host is full, try later), Lost
	// (spec.Again, and nothing of it is left).
	Start(ctx context.Context, spec MachineSpec) (Machine, error)
	// Blank makes what of an ephemeral machine needs neither image nor limits, but for its disk_mb; a Start that is given it is so
	// much sooner. Its machine is Pooled.
	//
	// Errors: those of Start that no image causes; NotSupported, the engine can't begin without them.
	// With 0 MiB its disk is the one that Start names (MachineSpec.Disk).
	Blank(ctx context.Context, id string, diskMB int) (Blank, error)
	// Recover takes over a living machine of a former daemon. Error Lost: it is not alive or does not answer.
	Recover(ctx context.Context, h Handle) (Machine, error)
	// List names everything on the host that carries this installation's mark, alive or half made.
	List(ctx context.Context) ([]Handle, error)
	// Halt ends what runs of a machine and keeps its files; idempotent. What is left of it List shows and Remove removes.
	Halt(ctx context.Context, h Handle) error
	// Remove is idempotent: nil for what is gone. An error names what is still there.
	Remove(ctx context.Context, h Handle) error
}

// MachineSpec is all that an engine needs for one machine; it reads no configuration, store or clock beside it.
type MachineSpec struct {
	ID         string // m_ + 12 hex
	SandboxID  string // whose it is; Pooled: it waits for a Lease
	Stateful   bool   // it outlives the daemon
	Layers     []string
	Limits     sandbox.Limits
	Security   sandbox.Security
	WorkingDir string
	Programs   []string    // interpreters or compilers that the image must have
	Env        [][2]string // to find Programs by its PATH
	Mounts     []Mount     // beside the layers
	Egress     string      // none, public or allow; what comes of it is the node's to connect, by EgressInterface
	Resolver   string      // the address of the DNS that programs find there; "" for none
	Disk       string      // a block device with the machine's own ext4 file system, or InMemory; "": the engine makes one
	Blank      Blank       `json:"-"` // of this ID and disk_mb; nil: none. It is Start's from then on, also where that fails
	Again      bool        // a stateful machine of this ID was halted: it starts on its own disk, host ids and layers
}

// InMemory stands where a machine's disk is named, of one that has none but memory.
const InMemory = "memory"

// Pooled stands where a machine's sandbox is named, of one that is nobody's yet.
const Pooled = "pool"

// EgressInterface is the name of the one link that a machine with egress has beside its loopback.
const EgressInterface = "egress0"

// Mount is a thing of the host that a machine sees at Path, which is made where it is missing.
type Mount struct {
	Kind   MountKind
	Source string // on the host
	Path   string // in the machine, absolute
}

// MountKind says what a Mount's Source is.
type MountKind string

// The kinds of mounts.
const (
	LayerMount  MountKind = "layer"  // an EROFS file: read-only, its ids are the machine's
	DiskMount   MountKind = "disk"   // an ext4 image that outlives machines: its ids are the machine's, its root is handed to the user
	DeviceMount MountKind = "device" // a device node: every user of the machine may read and write it
	HostMount   MountKind = "host"   // a file or folder of the host: read-only
	LinkMount   MountKind = "link"   // no mount, but a symbolic link to Source; for Start alone
)

// Blank is the beginning of a machine.
type Blank interface {
	// ID is the machine's.
	ID() string
	// Dead is closed when it has ended by itself or by Stop.
	Dead() <-chan struct{}
	// Memory is what the kernel counts for all of it, in bytes.
	Memory() int64
	// Stop removes everything of it; idempotent.
	Stop(ctx context.Context) error
}

// Handle is by what a machine is found again.
type Handle struct {
	ID        string
	SandboxID string // "" where the machine was half made
	Stateful  bool
}

// Held is what one machine has on the host, alive or half made.
type Held struct {
	Machine   string   // "" for what no machine can be told of
	SandboxID string   // "" where its record is gone
	Things    []string // each named: "cgroup …", "folder …", "disk …", "loop device …", "process …"
	Busy      bool     // a program runs in it, not the agent alone
}

// Machine is one isolated kernel-level thing that runs programs.
type Machine interface {
	Handle() Handle
	// Park makes room for one exec: its limits and a confined process that waits for what to run.
	//
	// Errors: UserNotFound, Lost.
	Park(ctx context.Context, e ExecSpec) (Exec, error)
	// Resume is the place of an exec whose program stays (Run.Stays is its id) and whose own place is gone with a former daemon: its Run
	// follows the program, as Feed.Resume says. Errors: Lost; of its Run also NotFound, nothing is known of the program.
	Resume(ctx context.Context, execID string) (Exec, error)
	// Warm lets the machine's first process become an interpreter that waits for a program as w says. It is for the exec that
	// Parks with the same Warm; for any other it is ended without a trace. It may be called beside Park, once. nil where the interpreter
	// can't wait there: then the process stays as it was. On error it is gone, and the machine goes on.
	Warm(ctx context.Context, w agent.Warm) error
	// Lease gives a machine that was made for nobody (Pooled) to a sandbox.
	Lease(sandboxID string) error
	// Attach shows a mount to the machine's programs, those that run already included; DiskMount and LinkMount are for Start alone.
	//
	// Errors: Invalid (the path can't be made), Lost.
	Attach(ctx context.Context, m Mount) error
	// Detach takes away what Attach showed at a path; what still uses it goes on. Error: Lost.
	Detach(ctx context.Context, path string) error
	// Call opens a connection to the agent for one call of Files, Processes or Signal; its Close ends the call. Error: Lost.
	Call(ctx context.Context) (*agent.Conn, error)
	// Network opens the inside of the machine's network. Error: Lost.
	Network() (Network, error)
	// Ping asks the agent whether it answers. Error: Lost.
	Ping(ctx context.Context) error
	// Memory is what the kernel counts for all of the machine, in bytes.
	Memory() int64
	// Isolation is what is in force for the machine's first process, read from the kernel while that still waits.
	Isolation() sandbox.Isolation
	// Dead is closed when the machine has ended by itself or by Stop.
	Dead() <-chan struct{}
	// Halt ends the machine and keeps its files, see Engine.Halt; idempotent.
	Halt(ctx context.Context) error
	// Stop ends the machine and removes everything of it; idempotent.
	Stop(ctx context.Context) error
}

// ExecSpec is what an engine must know of an exec.
type ExecSpec struct {
	ID     string
	User   string
	Limits sandbox.Limits // no higher than the machine's
	Warm   *agent.Warm    // that its program may be run by an interpreter warmed so; nil: by none
	Stays  bool           // its program does, see Run.Stays: Resume finds its place again
}

// Exec is the place of one program in a machine.
type Exec interface {
	// Run lets the waiting process become the program and returns when it has ended.
	Run(run agent.Run, feed agent.Feed) (agent.Exit, []agent.File, error)
	// Warm says that the waiting process is an interpreter already.
	Warm() bool
	// Kill ends the program with all it started; it works when the agent is starved.
	Kill() error
	// Control changes the terminal of a program that has one.
	Control(x agent.Control) error
	// Usage reads the kernel's counters; oom says that the memory limit killed it.
	Usage() (u sandbox.Usage, oom bool)
	// Isolation is what is in force for the waiting process, read from the kernel.
	Isolation() sandbox.Isolation
	// Close gives the place back. What still runs in a stateful machine stays, in any other it is killed. Before the program's end it
	// kills it, but where the Run said otherwise (Stays, Terminal).
	Close()
}

// Capabilities are what an engine can enforce on this host.
type Capabilities struct {
	Engine  string
	Usable  bool
	Kernel  string
	Cgroups string // v2, v1 or hybrid
	Checks  []Check
}

// Check is one thing that an engine needs or makes use of.
type Check struct {
	Name     string
	OK       bool
	Required bool
	Found    string // what there is
	Mend     string // what to do where it is not OK
}

// Network is the inside of one machine's network. Close lets go of it; the machine keeps it.
type Network interface {
	// Link makes the machine's one link beside its loopback. What is read from and written to it are whole IP packets.
	Link(ctx context.Context, l LinkSpec) (Link, error)
	// Dial connects to a server inside, one on its loopback included. network is tcp or udp.
	Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
	// Listen listens inside (tcp4).
	Listen(ctx context.Context, address string) (net.Listener, error)
	Close() error
}

// LinkSpec says what a machine's link is like.
type LinkSpec struct {
	Name      string
	MTU       int
	Addresses []netip.Prefix // of the machine
	Gateways  []netip.Addr   // one a family; they are the machine's way to everywhere
}

// Link is gone with Close, or after Leave with the machine.
type Link interface {
	io.ReadWriteCloser
	Leave() error
}
