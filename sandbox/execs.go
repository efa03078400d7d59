package sandbox

// ExecStatus says whether an exec's program may still run.
type ExecStatus string

// The statuses of an exec.
const (
	ExecRunning  ExecStatus = "running" // or it waits for its turn
	ExecFinished ExecStatus = "finished"
)

// ExecState is an exec as it is now; it is kept for ten minutes after its end.
type ExecState struct {
	ID         string      `json:"id"`
	SandboxID  string      `json:"sandbox_id"`
	Status     ExecStatus  `json:"status"`
	Background bool        `json:"background"`
	Command    string      `json:"command" doc:"What runs, cut to 120 characters: the command with its arguments, or the first line of the code."`
	StartedAt  Time        `json:"started_at"`
	FinishedAt *Time       `json:"finished_at"`
	ExitCode   *int        `json:"exit_code"` // the result's, in lists too
	Result     *ExecResult `json:"result"`    // null while it runs, where it came to nothing, and in lists
	Error      *ErrorBody  `json:"error"`     // why it came to nothing; beside a result, why its files were not collected
}

// StdinTaken is the answer to input for a program that runs.
type StdinTaken struct {
	Bytes int64 `json:"bytes" doc:"How many bytes were handed on to the program."`
}

// The streams of an exec's output.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)
