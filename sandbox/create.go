package sandbox

// CreateRequest is the body of the create call. A nil field is one that the client left out.
type CreateRequest struct {
	Language        *string             `json:"language,omitempty" required:"true" doc:"python, node, go, rust or bash; a program in Go or Rust is compiled as part of each exec" example:"python"`
	Image           *string             `json:"image,omitempty" doc:"Overrides the language's image: REPOSITORY[:TAG] or REPOSITORY@sha256:… of a registry; for role operator also deb:SUITE?include=a,b and, below the configured folders, oci:DIR, oci-archive:FILE, docker-archive:FILE, dir:PATH."`
	CreateWaitSecs  *int                `json:"create_wait_secs,omitempty" minimum:"0" maximum:"300" doc:"How long the call waits for an image that must first be made; 60 unless given. Longer: 503 image_preparing."`
	Mode            *string             `json:"mode,omitempty" enum:"ephemeral,stateful" doc:"ephemeral (the default): every exec starts from the same clean state. stateful: files and processes stay."`
	ResourceLimits  *LimitsRequest      `json:"resource_limits,omitempty"`
	Env             [][2]string         `json:"env,omitempty" doc:"Pairs of name and value; at most 256, 64 KiB together. Later answers redact the values."`
	WorkingDir      *string             `json:"working_dir,omitempty" doc:"Absolute; made if missing; /workspace unless given."`
	DiskSizeGB      *int                `json:"disk_size_gb,omitempty" minimum:"1" doc:"GiB of a persistent disk, which outlives resets, restarts and crashes and goes with the sandbox."`
	DiskMountPath   *string             `json:"disk_mount_path,omitempty" doc:"Where the persistent disk is mounted; /data unless given."`
	Ports           []PortRequest       `json:"ports,omitempty" doc:"Ports to publish; at most 64. Of an ephemeral sandbox they answer while an exec runs."`
	Security        *SecurityRequest    `json:"security,omitempty"`
	HealthCheck     *HealthCheckRequest `json:"health_check,omitempty" doc:"Without command and http: the agent answers, and each tcp port that was once open accepts."`
	Network         *NetworkRequest     `json:"network,omitempty" doc:"What programs reach; by the preset unless given: public, under maximum none."`
	Name            *string             `json:"name,omitempty" maxLength:"128" doc:"For people and for list filters."`
	Labels          map[string]string   `json:"labels,omitempty" doc:"For people and for list filters; at most 64."`
	MaxConcurrency  *int                `json:"max_concurrency,omitempty" minimum:"1" maximum:"1024" doc:"Stateful: execs at once; 16 unless given. More wait in order."`
	TTLSecs         *int                `json:"ttl_secs,omitempty" minimum:"1" doc:"The sandbox is deleted so long after its creation."`
	IdleTimeoutSecs *int                `json:"idle_timeout_secs,omitempty" minimum:"1" doc:"The sandbox is deleted so long after its last use; an exec holds it, what one left in the background does not."`
}

// LimitsRequest are the limits that a client asks for; policy knows the maxima, and fills in what is left out.
type LimitsRequest struct {
	MemoryMB  *int     `json:"memory_mb,omitempty" minimum:"16" doc:"MiB, everything in the sandbox together, in-memory mounts included."`
	CPUCores  *float64 `json:"cpu_cores,omitempty" minimum:"0.01" doc:"May be fractional."`
	TimeoutMS *int     `json:"timeout_ms,omitempty" minimum:"1" doc:"Limit of one exec, from the program's start."`
	DiskMB    *int     `json:"disk_mb,omitempty" minimum:"1" doc:"MiB of writable space."`
	GPU       *string  `json:"gpu,omitempty" doc:"TYPE:COUNT, for example T4:1; the sandbox has them alone."`
	Pids      *int     `json:"pids,omitempty" minimum:"1" doc:"Processes and threads together."`
}

// SecurityRequest is what a client asks of a machine's closing off.
type SecurityRequest struct {
	SeccompEnabled *bool   `json:"seccomp_enabled,omitempty" doc:"false only where the operator allows it."`
	JailerEnabled  *bool   `json:"jailer_enabled,omitempty" doc:"true: a microVM, or 422 microvm_unavailable."`
	User           *string `json:"user,omitempty" doc:"name, uid or uid:gid; by the preset unless given."`
	Preset         *string `json:"preset,omitempty" enum:"development,standard,maximum" doc:"standard unless given; explicit fields win over it."`
}

// PortRequest is one port to publish.
type PortRequest struct {
	GuestPort *int    `json:"guest_port,omitempty" required:"true" minimum:"1" maximum:"65535" doc:"Where a server in the sandbox listens, at 127.0.0.1 too."`
	HostPort  *int    `json:"host_port,omitempty" minimum:"0" maximum:"65535" doc:"One of the operator's; 0, the default, takes a free one."`
	Protocol  *string `json:"protocol,omitempty" enum:"tcp,udp" doc:"tcp unless given. A client's udp session ends after 60 s without traffic."`
}

// PatchRequest is the body of PATCH: what is left out stays as it is. 0 secs switch a time off.
type PatchRequest struct {
	Name            *string           `json:"name,omitempty" maxLength:"128"`
	Labels          map[string]string `json:"labels,omitempty" doc:"Instead of the ones there are."`
	TTLSecs         *int              `json:"ttl_secs,omitempty" minimum:"0" doc:"Counted from the creation; 0: none."`
	IdleTimeoutSecs *int              `json:"idle_timeout_secs,omitempty" minimum:"0" doc:"0: none."`
}

// HealthCheckRequest says how a sandbox's health is asked for.
type HealthCheckRequest struct {
	IntervalSecs    *int              `json:"interval_secs,omitempty" minimum:"1" maximum:"86400" doc:"30 unless given."`
	TimeoutSecs     *int              `json:"timeout_secs,omitempty" minimum:"1" maximum:"3600" doc:"10 unless given."`
	Retries         *int              `json:"retries,omitempty" minimum:"1" maximum:"1000" doc:"Failures in a row that make it unhealthy; 3 unless given."`
	StartPeriodSecs *int              `json:"start_period_secs,omitempty" minimum:"0" maximum:"86400" doc:"Failures before the first success do not count so long; 60 unless given."`
	Command         []string          `json:"command,omitempty" doc:"Healthy is exit code 0."`
	HTTP            *HTTPCheckRequest `json:"http,omitempty" doc:"Healthy is an answer of 200 to 399."`
}

// HTTPCheckRequest asks a server inside the sandbox.
type HTTPCheckRequest struct {
	Port *int    `json:"port,omitempty" required:"true" minimum:"1" maximum:"65535"`
	Path *string `json:"path,omitempty"`
}

// NetworkRequest is what a client wants to reach.
type NetworkRequest struct {
	Egress *string  `json:"egress,omitempty" enum:"none,public,allow" doc:"public: every address but private and special ones and the host's own. allow: of those, what allow lists."`
	Allow  []string `json:"allow,omitempty" doc:"Hosts, *.hosts, CIDRs, each with an optional :port; at most 256. A host opens tcp, to the addresses that it resolves to, and holds the names in TLS and HTTP against the list; udp takes a CIDR."`
}
