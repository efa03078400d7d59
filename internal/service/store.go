package service

import (
	"context"
	"time"

	"outpost.run/outpost/sandbox"
)

// Store keeps records over restarts and crashes. Stateful sandboxes and credentials are promises: when a method that
// writes one returns, it survives the loss of power; the rest survives the end of the process. All methods are safe for
// concurrent use; storetest is the suite that every store passes.
type Store interface {
	// PutSandbox inserts or replaces the record with that id.
	PutSandbox(ctx context.Context, s sandbox.Sandbox, m Moments) error
	// DeleteSandbox is nil for what is gone.
	DeleteSandbox(ctx context.Context, id string, mode sandbox.Mode) error
	// AllSandboxes are those of every namespace, the oldest first.
	AllSandboxes(ctx context.Context) ([]sandbox.Sandbox, error)
	// Moments are those of every sandbox, by id; one from before they were kept is missing.
	Moments(ctx context.Context) (map[string]Moments, error)
	// Clock is what PutClock kept last, if it did.
	Clock(ctx context.Context) (n ClockNote, noted bool, err error)
	// PutClock keeps the line of time.
	PutClock(ctx context.Context, n ClockNote) error
	// ListSandboxes gives one page and how many match in all.
	ListSandboxes(ctx context.Context, q SandboxQuery) ([]sandbox.Sandbox, int, error)

	PutCredential(ctx context.Context, c Credential) error
	// CredentialByHash finds what Authenticate needs. Errors: NotFound.
	CredentialByHash(ctx context.Context, hash [32]byte) (Credential, error)
	// Credential finds one by its id. Errors: NotFound.
	Credential(ctx context.Context, id string) (Credential, error)
	ListCredentials(ctx context.Context, q CredentialQuery) ([]Credential, int, error)
	// DeleteCredential removes it together with every token that was made with it, or with one of those.
	DeleteCredential(ctx context.Context, id string) error

	// BeginCall notes that a call with an idempotency key is under way, unless there is a note of that key: then it
	// answers that one and false.
	BeginCall(ctx context.Context, c Call) (Call, bool, error)
	// EndCall keeps the answer of a call until its Expires.
	EndCall(ctx context.Context, c Call) error
	// ForgetCall removes the note of a call, so that it can be made again.
	ForgetCall(ctx context.Context, scope, key string) error
	// ExpireCalls removes the notes whose time is over; now is on the line of time, as their Expires.
	ExpireCalls(ctx context.Context, now time.Time) error

	// PutExec inserts or replaces what is kept of an exec in the background.
	PutExec(ctx context.Context, n ExecNote) error
	// DeleteExec is nil for what is gone.
	DeleteExec(ctx context.Context, id string) error
	// Execs tells those of every namespace one by one, the one that was put first first; what each answers ends it.
	Execs(ctx context.Context, each func(ExecNote) error) error

	// AddEvent keeps an event of a namespace and answers its seq.
	AddEvent(ctx context.Context, namespace string, e sandbox.Event) (uint64, error)
	// Events are those after a seq, the oldest first.
	Events(ctx context.Context, q EventQuery) ([]sandbox.Event, error)
	// LastEvent is the seq of the newest event there ever was; 0 for none.
	LastEvent(ctx context.Context) (uint64, error)
	// ExpireEvents removes what is older.
	ExpireEvents(ctx context.Context, before time.Time) error

	Close() error
}

// EventQuery selects events of a namespace.
type EventQuery struct {
	Namespace string
	SandboxID string // "" for all
	Since     uint64 // those with a higher seq
	Most      int
}

// Paging is which page of a list to give, in which order.
type Paging struct {
	Page, PerPage int
	Sort          string // a column that the list's query names; "" created_at
	Descending    bool
}

// SandboxSorts are the fields that sandboxes can be sorted by.
var SandboxSorts = []string{"created_at", "updated_at", "name", "id", "status"}

// SandboxQuery selects sandboxes of one namespace; an empty field matches all.
type SandboxQuery struct {
	Namespace, Status, Language, Mode string
	LabelKey, LabelValue              string
	Paging
}

// CredentialSorts are the fields that credentials can be sorted by.
var CredentialSorts = []string{"created_at", "name", "id"}

// CredentialQuery selects credentials of one kind; an empty field matches all.
type CredentialQuery struct {
	Kind, Namespace, Maker string
	Paging
}

// The kinds of credentials that are kept.
const (
	KeyKind   = "key"
	TokenKind = "pat"
)

// Credential is an API key or a personal access token; of the secret only its hash is kept.
type Credential struct {
	ID        string
	Kind      string
	Name      string
	Namespace string
	Role      sandbox.Role
	RateLimit *int // calls a minute; nil: the server's
	Hash      [32]byte
	Maker     string        // id of the credential that made it
	ExpiresAt *sandbox.Time // nil: never
	CreatedAt sandbox.Time
}

// Call is one call with an idempotency key, and its answer once there is one.
type Call struct {
	Scope   string // whose key, on which route
	Key     string
	Body    [32]byte // hash of the body
	Run     string   // of which run of the server; a note of another run that has no answer was cut off
	Done    bool
	Answer  Answer
	Begun   time.Time // on the line of time, as Expires
	Expires time.Time
}

// Answer is what was said to a client; Status is in the numbers of the caller's protocol.
type Answer struct {
	Status int
	Body   []byte
}
