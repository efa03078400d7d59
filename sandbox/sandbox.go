package sandbox

// Mode says what a sandbox keeps between execs.
type Mode string

// The modes: an ephemeral sandbox starts every exec from the same clean state, a stateful one keeps files and processes.
const (
	Ephemeral Mode = "ephemeral"
	Stateful  Mode = "stateful"
)

// Status is where a sandbox is in its life.
type Status string

// The statuses of a sandbox.
const (
	Creating Status = "creating"
	Running  Status = "running"
	Stopped  Status = "stopped"
	Failed   Status = "failed"
	LostNow  Status = "lost" // its machine died with the host; a stateful one can be started again
)

// Preset is a named set of security fields.
type Preset string

// The presets, from the widest to the narrowest.
const (
	Development Preset = "development"
	Standard    Preset = "standard"
	Maximum     Preset = "maximum"
)

// Limits are what a sandbox, or one exec of it, may use. All are set: defaults are filled in before they travel.
type Limits struct {
	MemoryMB  int     `json:"memory_mb"`  // MiB, all programs together, /dev/shm included, the agent not
	CPUCores  float64 `json:"cpu_cores"`  // bandwidth over 100 ms; seen rounded up
	TimeoutMS int     `json:"timeout_ms"` // of one exec, from the program's start
	DiskMB    int     `json:"disk_mb"`    // MiB of writable space
	GPU       *string `json:"gpu"`        // TYPE:COUNT
	Pids      int     `json:"pids"`       // processes and threads together
}

// Security is how a machine is closed off. All fields are set.
type Security struct {
	SeccompEnabled bool   `json:"seccomp_enabled"`
	JailerEnabled  bool   `json:"jailer_enabled"`
	User           string `json:"user"` // name, uid or uid:gid
	Preset         Preset `json:"preset"`
}

// Network is what a machine reaches.
type Network struct {
	Egress string   `json:"egress"` // none, public or allow
	Allow  []string `json:"allow"`
}

// Isolation says what is in force, read back from the kernel, never what was merely asked for.
type Isolation struct {
	Engine    string   `json:"engine"`
	VMM       string   `json:"vmm,omitempty"` // of a microVM: firecracker or qemu
	Requested []string `json:"requested,omitempty"`
	Effective []string `json:"effective"`
	Missing   []string `json:"missing"`
}

// Usage is what one exec used, read from its control group.
type Usage struct {
	CPUMS           float64 `json:"cpu_ms"`
	MemoryPeakBytes int64   `json:"memory_peak_bytes"`
	PidsPeak        *int64  `json:"pids_peak"` // nil where the kernel doesn't tell
}

// Timings are the phases of one exec, in milliseconds.
type Timings struct {
	QueueMS   float64 `json:"queue_ms"`
	PrepareMS float64 `json:"prepare_ms"`
	DepsMS    float64 `json:"deps_ms"`
	RunMS     float64 `json:"run_ms"`
}

// TerminationReason is why an exec ended.
type TerminationReason string

// The reasons for which an exec ends.
const (
	Exited    TerminationReason = "exited"
	Signaled  TerminationReason = "signaled"
	TimedOut  TerminationReason = "timed_out"
	OOMKilled TerminationReason = "oom_killed"
	Cancelled TerminationReason = "cancelled"
)
