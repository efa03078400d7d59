// Package vmm is what the microVM engine asks of a virtual machine monitor: one process a machine, in a jail of its own.
package vmm

import (
	"context"
	"net"
	"os"
)

// Monitor starts virtual machines of one kind. All methods are safe for concurrent use.
type Monitor interface {
	// Name is firecracker or qemu.
	Name() string
	// Probe says what this host lets the monitor do, and what mends the rest.
	Probe(ctx context.Context) Report
	// Start makes the jail, starts the monitor's process in it, gives it its devices and boots the guest. On error nothing of it runs; what
	// is left of its jail Remove removes.
	Start(ctx context.Context, c Config) (VM, error)
	// Find takes over a living one that a former daemon started with the same ID and Dir.
	Find(ctx context.Context, c Config) (VM, error)
	// Remove removes the jail of a machine whose process has ended; idempotent.
	Remove(dir string) error
}

// Config is one machine's.
type Config struct {
	ID        string // m_ + 12 hex
	Dir       string // the machine's own folder, root's and closed to others; the jail is made below it
	UID, GID  int    // the monitor's, of nobody else
	Kernel    string // an ELF file
	Initrd    string
	Arguments string // of the kernel, beside the monitor's own
	MemoryMB  int
	VCPUs     int
	Drives    []Drive // vda, vdb … in this order
	Restore   string  // a folder that VM.Snapshot filled: the guest goes on from there, its drives being of the same number; "": it boots
	Namespace *os.File
	Place     func(pid int) error // called when the monitor's process exists, and before the guest runs: puts it into its control group
	Processes func() []int        // those of that group
}

// Drive is a file or a block device of the host that a guest has as a block device.
type Drive struct {
	ID       string
	Path     string
	ReadOnly bool
	Durable  bool // what a guest was told is written is so when the host dies
}

// VM is a virtual machine.
type VM interface {
	// Dial makes a connection to the guest's keeper.
	Dial(ctx context.Context) (net.Conn, error)
	// SetDrive puts another file behind a drive. Error: NotSupported.
	SetDrive(ctx context.Context, id, path string) error
	// Snapshot stops the guest for good and writes all of it into a folder. Error: NotSupported.
	Snapshot(ctx context.Context, dir string) error
	// Console is the last that the guest said there; nothing, of one that was found.
	Console() string
	// Isolation names the protections that are in force for the monitor's process, see Protections.
	Isolation() []string
	// Dead is closed when the monitor's process has ended.
	Dead() <-chan struct{}
	// Kill ends it.
	Kill()
}

// Report is what a host lets a monitor do.
type Report struct {
	Version string
	Usable  bool
	Checks  []Check
}

// Check is one thing that a monitor needs or makes use of.
type Check struct {
	Name     string
	OK       bool
	Required bool
	Found    string // what there is
	Mend     string // what to do where it is not OK
}

// NewReport sums checks up.
func NewReport(version string, checks ...Check) Report {
	r := Report{Version: version, Usable: true, Checks: checks}
	for _, x := range checks {
		r.Usable = r.Usable && (x.OK || !x.Required)
	}
	return r
}
