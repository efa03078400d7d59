package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Queue keeps jobs over restarts, crashes and the loss of power, and has each of them run: at least once, the namespaces in turn. All
// methods are safe for concurrent use.
type Queue interface {
	// Start begins to hand out attempts to run, those of a former run of the server included.
	Start(ctx context.Context, run func(ctx context.Context, j JobSpec) JobOutcome) error
	// Submit accepts a job: it is kept when this returns. Errors: QuotaExceeded, Capacity.
	Submit(ctx context.Context, j JobSpec) (sandbox.Job, error)
	// Job gives one with its result, and what was submitted. Error: NotFound.
	Job(ctx context.Context, namespace, id string) (sandbox.Job, JobSpec, error)
	// State is the status of one, and which attempt its result is of; 0: it has none. Error: NotFound.
	State(ctx context.Context, namespace, id string) (status sandbox.JobStatus, resultOf int, err error)
	// Jobs gives one page without results, and how many match in all.
	Jobs(ctx context.Context, q JobQuery) ([]sandbox.Job, int, error)
	// Cancel ends a job in any state and waits a moment for its program to be gone. Errors: NotFound, AlreadyFinished.
	Cancel(ctx context.Context, namespace, id string) (sandbox.Job, error)
	// Load is how many jobs of all namespaces wait, for their turn or their time, and how many run.
	Load(ctx context.Context) (queued, running int, err error)
	// Pause hands out no more attempts; those under way go on.
	Pause()
	// Close ends the queue when the attempts under way have ended, or ctx has.
	Close(ctx context.Context) error
	// CallbackKey is what a namespace's callbacks are signed with.
	CallbackKey(namespace string) string
}

// JobSpec is a job as it is kept.
type JobSpec struct {
	ID          string
	Namespace   string
	By          Caller // who submitted it
	Request     sandbox.ExecuteRequest
	MaxAttempts int
	Priority    int
	CallbackURL string // "" for none
	Command     string // in short
	Attempt     int    `json:"-"` // the number of the attempt that is made now; from 1
}

// JobOutcome is what an attempt came to: one of the two.
type JobOutcome struct {
	Result *sandbox.ExecResult
	Err    error
}

// JobSorts are the fields that jobs can be sorted by.
var JobSorts = []string{"created_at", "started_at", "finished_at", "priority", "status", "id"}

// JobQuery selects jobs of one namespace; an empty field matches all.
type JobQuery struct {
	Namespace, Status, SandboxID string
	Paging
}
