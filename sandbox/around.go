package sandbox

// Event is one change of a sandbox.
type Event struct {
	Seq       uint64        `json:"seq"` // ascending within a server, over restarts too
	SandboxID string        `json:"sandbox_id"`
	Type      string        `json:"type"` // a Status, deleted, or health
	At        Time          `json:"at"`
	Status    Status        `json:"status,omitempty"`
	Health    *HealthStatus `json:"health,omitempty"` // of type health
	Reason    string        `json:"reason,omitempty"` // why, where no call asked for it: ttl, idle, lost
}

// The types of events that are no Status.
const (
	DeletedEvent = "deleted"
	HealthEvent  = "health"
)

// Whoami is the credential of a call.
type Whoami struct {
	Namespace string `json:"namespace"` // "" for an operator's
	Role      Role   `json:"role"`
}

// LanguageInfo is one language of the server.
type LanguageInfo struct {
	Language string `json:"language"`
	Image    string `json:"image"` // its default
}

// ImageInfo is one image that is ready on the server.
type ImageInfo struct {
	Image     string `json:"image"`
	Digest    string `json:"image_digest"`
	SizeBytes int64  `json:"size_bytes"` // layers that it shares with others included
	CreatedAt Time   `json:"created_at"`
	UsedAt    Time   `json:"used_at"`
}

// NamespaceUsage is a namespace's quota and what it has of it.
type NamespaceUsage struct {
	Namespace string       `json:"namespace"`
	Sandboxes UsageOfQuota `json:"sandboxes"`
	Execs     UsageOfQuota `json:"concurrent_execs"`
}

// UsageOfQuota is a number and its bound.
type UsageOfQuota struct {
	Used  int `json:"used"`
	Limit int `json:"limit"`
}

// List is an answer that is not paged.
type List[T any] struct {
	Data []T `json:"data"`
}
