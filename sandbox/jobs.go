package sandbox

// JobPrefix begins the ids of jobs.
const JobPrefix = "job_"

// JobStatus is what has become of a job.
type JobStatus string

// The statuses of a job; the last four are ends.
const (
	JobQueued    JobStatus = "queued"
	JobRunning   JobStatus = "running"
	JobSucceeded JobStatus = "succeeded" // exit code 0
	JobFailed    JobStatus = "failed"    // another exit code, or an error
	JobCancelled JobStatus = "cancelled"
	JobTimedOut  JobStatus = "timed_out"
)

// Ended says whether nothing more becomes of a job.
func (s JobStatus) Ended() bool { return s != JobQueued && s != JobRunning }

// JobRequest is the body that submits a job: that of execute, and how it is queued.
type JobRequest struct {
	ExecuteRequest

	MaxAttempts *int    `json:"max_attempts,omitempty" minimum:"1" maximum:"100" doc:"How often it is tried until it succeeds; 1 unless given. An attempt that the server did not survive is repeated anyway."`
	Priority    *int    `json:"priority,omitempty" minimum:"-10" maximum:"10" doc:"The highest begins first, among the namespace's own; 0 unless given."`
	CallbackURL *string `json:"callback_url,omitempty" doc:"Where the job is posted when it has ended: http or https, at a public address."`
}

// Job is a program on the queue.
type Job struct {
	ID          string      `json:"id"`
	Namespace   string      `json:"namespace"`
	SandboxID   *string     `json:"sandbox_id"` // null: a fresh machine
	Command     string      `json:"command" doc:"What runs, cut to 120 characters: the command with its arguments, or the first line of the code."`
	Status      JobStatus   `json:"status"`
	Attempts    int         `json:"attempts"` // that have begun
	MaxAttempts int         `json:"max_attempts"`
	Priority    int         `json:"priority"`
	CreatedAt   Time        `json:"created_at"`
	StartedAt   *Time       `json:"started_at"` // of the last attempt
	FinishedAt  *Time       `json:"finished_at"`
	ExitCode    *int        `json:"exit_code"` // the result's, in lists too
	Callback    *string     `json:"callback" enum:"waiting,heard,given_up" doc:"What became of the word to callback_url that the job has ended; null before its end, and where none was asked for."`
	Result      *ExecResult `json:"result"` // of the last attempt that had one; null in lists
	Error       *ErrorBody  `json:"error"`  // of the last attempt that came to nothing
}

// CallbackKey is what a namespace's callbacks are signed with.
type CallbackKey struct {
	Key string `json:"key"`
}
