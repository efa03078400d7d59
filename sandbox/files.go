package sandbox

// FileInfo is an entry of a folder.
type FileInfo struct {
	Name       string `json:"name"`
	Path       string `json:"path"` // absolute, in the sandbox
	Type       string `json:"type" enum:"file,directory,symlink,other"`
	Size       int64  `json:"size"` // bytes
	Mode       string `json:"mode"` // permission bits in octal: 0644
	ModifiedAt Time   `json:"modified_at"`
}

// The types of a FileInfo.
const (
	RegularFile  = "file"
	Directory    = "directory"
	SymbolicLink = "symlink"
	OtherFile    = "other"
)

// MkdirRequest is the body of mkdir.
type MkdirRequest struct {
	Path *string `json:"path,omitempty" doc:"Of the folder; its parents are made too. Relative to the working directory."`
}

// Process is one process of a sandbox.
type Process struct {
	Pid         int      `json:"pid"` // as seen inside
	PPid        int      `json:"ppid"`
	User        string   `json:"user"`
	Command     []string `json:"command"`
	StartedAt   Time     `json:"started_at"`
	CPUMS       int64    `json:"cpu_ms"`
	MemoryBytes int64    `json:"memory_bytes"` // resident
}

// SignalRequest is the body of signal.
type SignalRequest struct {
	Signal *string `json:"signal,omitempty" doc:"SIGTERM, SIGKILL, SIGHUP, …"`
}

// Ticket lets who can't send a header open a terminal: once, within half a minute.
type Ticket struct {
	Ticket string `json:"ticket"`
}

// TerminalControl is what a client sends a terminal as text: one of the two.
type TerminalControl struct {
	Resize *TerminalSize `json:"resize,omitempty"`
	Signal *string       `json:"signal,omitempty"` // to what is in the foreground
}

// TerminalSize is a terminal's, in characters.
type TerminalSize struct {
	Cols int `json:"cols"`
	Rows int `json:"rows"`
}

// TerminalEnd is what a terminal's client is sent as text when its program has ended.
type TerminalEnd struct {
	Exit *ExecResult `json:"exit,omitempty"`
	Fail *ErrorBody  `json:"error,omitempty"`
}

// FileVerb is what a call on files does, on its way from the server into a machine.
type FileVerb string

// The verbs.
const (
	GetFile    FileVerb = "get"    // gives its info, then its bytes
	PutFile    FileVerb = "put"    // takes its bytes
	ListFolder FileVerb = "list"   // gives an info for each entry
	MakeFolder FileVerb = "mkdir"  // with its parents
	RemoveFile FileVerb = "remove" // or a folder with all that is in it
	PackFolder FileVerb = "pack"   // gives a tar archive of it
	Unpack     FileVerb = "unpack" // takes a tar archive, and unpacks it in the folder
)
