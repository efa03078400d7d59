package sandbox

// Sandbox is the answer of create, get and list.
type Sandbox struct {
	ID              string            `json:"id"`
	Namespace       string            `json:"namespace"`
	Name            string            `json:"name"`
	Language        string            `json:"language"`
	Image           string            `json:"image"`
	ImageDigest     string            `json:"image_digest"`
	Mode            Mode              `json:"mode"`
	Status          Status            `json:"status"`
	ResourceLimits  Limits            `json:"resource_limits"`
	Env             [][2]string       `json:"env"` // values in the create's answer only, later "redacted"
	WorkingDir      string            `json:"working_dir"`
	DiskSizeGB      *int              `json:"disk_size_gb"`
	DiskMountPath   *string           `json:"disk_mount_path"`
	Ports           []Port            `json:"ports"`
	Security        Security          `json:"security"`
	HealthCheck     HealthCheck       `json:"health_check"`
	Health          Health            `json:"health"`
	Network         Network           `json:"network"`
	TTLSecs         *int              `json:"ttl_secs"`
	IdleTimeoutSecs *int              `json:"idle_timeout_secs"`
	MaxConcurrency  int               `json:"max_concurrency"`
	Isolation       Isolation         `json:"isolation"`
	Labels          map[string]string `json:"labels"`
	CreatedAt       Time              `json:"created_at"`
	UpdatedAt       Time              `json:"updated_at"`
	LastUsedAt      *Time             `json:"last_used_at"`
	ExpiresAt       *Time             `json:"expires_at"` // when it is deleted by ttl_secs, or by idle_timeout_secs if nothing uses it
}

// Port is one published port.
type Port struct {
	GuestPort int    `json:"guest_port"`
	HostPort  int    `json:"host_port"`
	Protocol  string `json:"protocol"` // tcp or udp
}

// HealthCheck is how a sandbox's health is asked for. Without Command and HTTP its agent must answer, and each tcp port
// that was once open must accept.
type HealthCheck struct {
	IntervalSecs    int        `json:"interval_secs"`
	TimeoutSecs     int        `json:"timeout_secs"`
	Retries         int        `json:"retries"`           // so many failures in a row make it unhealthy
	StartPeriodSecs int        `json:"start_period_secs"` // in which failures do not count, until the first success
	Command         []string   `json:"command,omitempty"`
	HTTP            *HTTPCheck `json:"http,omitempty"`
}

// HTTPCheck wants an answer of 200 to 399 from a server inside the sandbox.
type HTTPCheck struct {
	Port int    `json:"port"`
	Path string `json:"path"`
}

// Health is what the last check said.
type Health struct {
	Status    HealthStatus `json:"status"`
	Failures  int          `json:"failures"` // in a row
	CheckedAt *Time        `json:"checked_at"`
}

// HealthStatus is how a sandbox is.
type HealthStatus string

// The states of health.
const (
	HealthNone HealthStatus = "none" // not checked yet
	Starting   HealthStatus = "starting"
	Healthy    HealthStatus = "healthy"
	Unhealthy  HealthStatus = "unhealthy"
)
