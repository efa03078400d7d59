package service

import (
	"context"
	"io"
	"time"

	"outpost.run/outpost/sandbox"
)

// Runtime is what the service asks for machines: this node, and later a cluster. Arguments are plain data, errors are
// *sandbox.Error, streams are byte streams: no descriptors, host paths or callbacks cross it, so that it can become a
// process boundary. Its suite (runtimetest) runs twice, called directly and through a pipe that encodes every message.
// All methods are safe for concurrent use.
type Runtime interface {
	// Sync says once, before any other call, which sandboxes exist: their machines are found again (stateful ones with
	// their processes), everything else that carries this installation's mark is removed. It answers the state of
	// each, in order: Running, or LostNow for a stateful sandbox whose machine is gone.
	//
	// Errors: Conflict, it was called before; Internal.
	Sync(ctx context.Context, known []SandboxSpec) ([]SandboxState, error)
	// Create checks image, interpreter, user and directory and makes the sandbox's first machine.
	//
	// Errors: ImagePreparing (RetryAfterSecs set), ImageNotFound, LanguageRuntimeMissing, UserNotFound, NotSupported,
	// MicroVMUnavailable, PortNotAllowed, PortInUse, QuotaExceeded (ports), Capacity. On error nothing of s.ID is left.
	Create(ctx context.Context, s SandboxSpec) (SandboxState, error)
	// Exec runs one program and returns when it has ended. Output goes to out, at most MaxOutputBytes a stream, while the
	// program runs. When ctx ends first, the program is killed and the outcome is Cancelled, with no error; so too when
	// the sandbox is deleted meanwhile.
	//
	// Errors: NotFound, UserNotFound, LanguageRuntimeMissing, CollectTooLarge, DiskFull (files do not fit), Invalid
	// (a path in Files that can't be written), DepsFailed, Capacity, SandboxStopped, Lost (the machine died or the daemon
	// is stopping, or nothing is known any more of what was to Resume).
	Exec(ctx context.Context, sandboxID string, e ExecSpec, out Streams) (ExecOutcome, error)
	// Control changes the terminal of an exec that runs in a stateful sandbox, or signals what is in its foreground.
	//
	// Error: NotFound.
	Control(ctx context.Context, sandboxID, execID string, c TerminalControl) error
	// Files does one call on the files of a stateful sandbox, as its user. body is what a put or unpack reads; what comes of the
	// call goes to out.
	//
	// Errors: NotFound, NotStateful, SandboxStopped, Lost, FileNotFound, FilePermissionDenied, IsADirectory, NotADirectory,
	// FileTooLarge, DiskFull, Conflict, Invalid (a path, an archive); those of body and out.
	Files(ctx context.Context, sandboxID string, op FileOp, body io.Reader, out FileSink) error
	// Processes are those of a stateful sandbox. Errors: NotFound, NotStateful, SandboxStopped, Lost.
	Processes(ctx context.Context, sandboxID string) ([]sandbox.Process, error)
	// Signal sends a signal to one of them, by its number inside. Errors: those of Processes; NotFound, there is no such process.
	Signal(ctx context.Context, sandboxID string, pid, signal int) error
	// Stop ends the machine of a stateful sandbox and keeps its files; what runs in it answers as Cancelled. nil for one
	// that is stopped.
	//
	// Errors: NotFound, NotStateful.
	Stop(ctx context.Context, sandboxID string) error
	// Start makes a machine on the files of a stateful sandbox that was stopped or lost; nil for one that runs.
	//
	// Errors: NotFound, NotStateful, those of Create; Lost, its files are gone.
	Start(ctx context.Context, sandboxID string) (SandboxState, error)
	// OpenPort publishes a port of a stateful sandbox and answers the assigned HostPort.
	//
	// Errors: NotFound, NotStateful, PortNotAllowed, PortInUse, QuotaExceeded, Capacity, Conflict (that guest port is
	// published already).
	OpenPort(ctx context.Context, sandboxID string, p sandbox.Port) (sandbox.Port, error)
	// ClosePort closes a published port. Errors: NotFound (the sandbox, or the port), NotStateful.
	ClosePort(ctx context.Context, sandboxID string, guestPort int, protocol string) error
	// Images are those that are ready and that the namespace may use; an operator sees all.
	Images(ctx context.Context, namespace string, operator bool) ([]sandbox.ImageInfo, error)
	// Watch sends what becomes of sandboxes by itself to events until ctx ends.
	Watch(ctx context.Context, events chan<- Event) error
	// Delete kills what runs and removes everything of the sandbox; nil for what is gone.
	Delete(ctx context.Context, sandboxID string) error
	// Inspect reads the sandbox's state from its machine.
	Inspect(ctx context.Context, sandboxID string) (SandboxState, error)
	// Close ends execs under way as Lost and removes the machines of ephemeral sandboxes; those of stateful sandboxes
	// live on, unless stopAll.
	Close(ctx context.Context, stopAll bool) error
}

// SandboxSpec is all that a runtime needs for one sandbox; defaults are filled in, policy has been applied.
type SandboxSpec struct {
	ID         string // sb_ + 12 hex
	Namespace  string
	Language   string // python, bash
	Image      string // a reference, for example deb:trixie?include=python3
	Mode       sandbox.Mode
	Limits     sandbox.Limits
	Env        [][2]string
	WorkingDir string // absolute
	Security   sandbox.Security
	Network    sandbox.Network
	Ports      []sandbox.Port // with HostPort 0 the runtime chooses
	Disk       *Disk          // nil: none
	Health     sandbox.HealthCheck
	Operator   bool // whoever created it has the role operator
	Unsaid     Unsaid
	CreateWait time.Duration // how long Create waits for an image that must first be made
	First      *ExecSpec     // what will run in it first, if that is known: its machine may be made ready for that

	// For Sync, of a sandbox that was there before:
	Started     bool   // it had a machine (it was not stopped)
	ImageDigest string // the image it was created from, whatever the reference means by now
}

// Unsaid is what nobody asked for by name, so that the image may say it: Security.User and WorkingDir then hold what counts
// where the image says nothing better.
type Unsaid struct {
	User       bool
	Preset     bool
	WorkingDir bool
}

// Disk is a sandbox's persistent disk.
type Disk struct {
	SizeGB    int
	MountPath string // absolute
}

// SandboxState is what a runtime knows of a sandbox.
type SandboxState struct {
	ID          string
	Status      sandbox.Status
	ImageDigest string // sha256:…
	User        string // as whom programs run
	WorkingDir  string
	Isolation   sandbox.Isolation
	Ports       []sandbox.Port // with their host ports
	Health      sandbox.Health
}

// Event is a change of a sandbox that no call asked for; one of the fields beside SandboxID is set.
type Event struct {
	SandboxID string
	Status    sandbox.Status  // "" for no change
	Health    *sandbox.Health // nil for no change
}

// ExecSpec is one program to run; code or command is set, never both.
type ExecSpec struct {
	ID             string // exec_ + 12 hex
	Language       string // of Code; the sandbox's where the request names none
	Deps           []string
	Code           *string
	Command        []string
	Args           []string
	Env            [][2]string // over the sandbox's
	Stdin          []byte
	User           string // "" the sandbox's
	WorkingDir     string // "" the sandbox's
	Files          []File
	Collect        []string              // paths or globs, relative to the working directory
	Limits         sandbox.Limits        // the effective ones of this exec; TimeoutMS included
	MaxOutputBytes int64                 // of each stream
	Terminal       *sandbox.TerminalSize // its standard streams are a terminal of that size, and all its output is Stdout
	Background     bool                  // it lives on when the server stops, or dies; without a TimeoutMS it has no deadline
	Resume         *[2]int64             // it was left running in the background, and so much of its stdout and stderr is known; nil: it is new
}

// File is one file to put in before the program starts, or one collected after it.
type File struct {
	Path    string // as the client wrote or asked it; relative to the working directory, or the path a glob matched
	Content []byte
}

// FileOp is one call on the files of a sandbox.
type FileOp struct {
	Verb   sandbox.FileVerb
	Path   string // relative to the working directory
	Offset int64  // of get: bytes to leave out
	Length int64  // of get: at most so many; 0: all
	Mode   uint32 // of put: permission bits; 0: those of the file that is there, else 0644
}

// FileSink takes what a call on files brings, in order: of get the file's info and its bytes, of list an info for each
// entry, of pack the archive's bytes.
type FileSink interface {
	io.Writer
	Found(sandbox.FileInfo) error
}

// TerminalControl changes a terminal.
type TerminalControl struct {
	Size   sandbox.TerminalSize // 0: as it is
	Signal int                  // 0: none
}

// Streams take a program's output while it runs. The runtime calls each writer from one goroutine at a time.
type Streams struct {
	Stdin          io.Reader // what comes while the program runs; nil: ExecSpec's alone
	Stdout, Stderr io.Writer
	Started        chan<- struct{} // is told once that the program starts; nil: nobody wants to know
}

// ExecOutcome is how a program ended, less its output.
type ExecOutcome struct {
	ExitCode    int    // 128+n for a signal, 124 for the deadline, 137 for the memory limit
	Signal      string // SIGKILL; "" for none
	Reason      sandbox.TerminationReason
	StdoutBytes int64 // what the program wrote, beyond the limit too
	StderrBytes int64
	Start       string // warm or cold
	Timings     sandbox.Timings
	DurationMS  float64
	Usage       sandbox.Usage
	Files       []File
	Isolation   sandbox.Isolation
	// DepsResolved are the dependencies that were there, each with its version.
	DepsResolved []string
}
