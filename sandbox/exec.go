package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"
)

// ExecRequest is the body of an exec call. A nil field is one that the client left out; code or command is needed.
type ExecRequest struct {
	Code           *string                `json:"code,omitempty" doc:"The program."`
	Command        []string               `json:"command,omitempty" doc:"Program and arguments, instead of code."`
	Language       *string                `json:"language,omitempty" doc:"Of the code; the sandbox's unless given."`
	Deps           []string               `json:"deps,omitempty" doc:"Packages that the program needs, in the spelling of its language's manager (requests==2.32.3, lodash@4.17.21, apt:jq). An ephemeral sandbox has them for this exec, a stateful one for good."`
	TimeoutSecs    *int                   `json:"timeout_secs,omitempty" minimum:"1" doc:"Wins over resource_limits.timeout_ms."`
	ResourceLimits *LimitsRequest         `json:"resource_limits,omitempty" doc:"May only lower the sandbox's; the time alone may also be longer."`
	Stdin          *string                `json:"stdin,omitempty"`
	StdinEncoding  *string                `json:"stdin_encoding,omitempty" enum:"utf8,base64"`
	StdinOpen      *bool                  `json:"stdin_open,omitempty" doc:"After stdin, if there is any, more comes by calls of execs/{exec_id}/stdin, until one of them was the last. Without one the program waits for it until its time is up."`
	Args           []string               `json:"args,omitempty" doc:"Arguments of the code."`
	Env            [][2]string            `json:"env,omitempty" doc:"Over the sandbox's."`
	User           *string                `json:"user,omitempty" doc:"For this exec: name, uid or uid:gid."`
	WorkingDir     *string                `json:"working_dir,omitempty" doc:"For this exec; absolute; made if missing."`
	Files          map[string]FileContent `json:"files,omitempty" doc:"Put in before the program starts, owned by the exec's user."`
	Collect        []string               `json:"collect,omitempty" doc:"Paths or globs that come back as files of the result; 8 MiB together."`
	OutputEncoding *string                `json:"output_encoding,omitempty" enum:"utf8,base64"`
	MaxOutputBytes *int                   `json:"max_output_bytes,omitempty" minimum:"1" maximum:"16777216" doc:"Of each stream; 1 MiB unless given."`
	OnDisconnect   *string                `json:"on_disconnect,omitempty" enum:"kill,keep" doc:"What becomes of the program when the client goes away; kill, with an Idempotency-Key keep."`
	Background     *bool                  `json:"background,omitempty" doc:"In a stateful sandbox: the answer is 201 with the exec's state at once; its end and output are told by execs. Without a time of its own it has no deadline, and it outlives the server."`
}

// ExecuteRequest is the body of execute: the fields of exec and of create; with sandbox_id those of exec alone.
type ExecuteRequest struct {
	SandboxID *string `json:"sandbox_id,omitempty" doc:"Runs there instead of in a fresh machine; the fields of create are then refused."`

	Code           *string                `json:"code,omitempty" doc:"The program."`
	Command        []string               `json:"command,omitempty" doc:"Program and arguments, instead of code."`
	Language       *string                `json:"language,omitempty" doc:"Required without sandbox_id."`
	Deps           []string               `json:"deps,omitempty" doc:"Packages that the program needs, in the spelling of its language's manager (requests==2.32.3, lodash@4.17.21, apt:jq). An ephemeral sandbox has them for this exec, a stateful one for good."`
	TimeoutSecs    *int                   `json:"timeout_secs,omitempty" minimum:"1"`
	ResourceLimits *LimitsRequest         `json:"resource_limits,omitempty"`
	Stdin          *string                `json:"stdin,omitempty"`
	StdinEncoding  *string                `json:"stdin_encoding,omitempty" enum:"utf8,base64"`
	StdinOpen      *bool                  `json:"stdin_open,omitempty"`
	Args           []string               `json:"args,omitempty"`
	Env            [][2]string            `json:"env,omitempty"`
	User           *string                `json:"user,omitempty"`
	WorkingDir     *string                `json:"working_dir,omitempty"`
	Files          map[string]FileContent `json:"files,omitempty"`
	Collect        []string               `json:"collect,omitempty"`
	OutputEncoding *string                `json:"output_encoding,omitempty" enum:"utf8,base64"`
	MaxOutputBytes *int                   `json:"max_output_bytes,omitempty" minimum:"1" maximum:"16777216"`
	OnDisconnect   *string                `json:"on_disconnect,omitempty" enum:"kill,keep"`
	Background     *bool                  `json:"background,omitempty"`

	Image           *string             `json:"image,omitempty"`
	CreateWaitSecs  *int                `json:"create_wait_secs,omitempty" minimum:"0" maximum:"300"`
	Mode            *string             `json:"mode,omitempty" enum:"ephemeral,stateful" doc:"ephemeral alone"`
	DiskSizeGB      *int                `json:"disk_size_gb,omitempty" minimum:"1"`
	DiskMountPath   *string             `json:"disk_mount_path,omitempty"`
	Ports           []PortRequest       `json:"ports,omitempty"`
	Security        *SecurityRequest    `json:"security,omitempty"`
	HealthCheck     *HealthCheckRequest `json:"health_check,omitempty"`
	Network         *NetworkRequest     `json:"network,omitempty"`
	Name            *string             `json:"name,omitempty" maxLength:"128"`
	Labels          map[string]string   `json:"labels,omitempty"`
	MaxConcurrency  *int                `json:"max_concurrency,omitempty" minimum:"1" maximum:"1024"`
	TTLSecs         *int                `json:"ttl_secs,omitempty" minimum:"1"`
	IdleTimeoutSecs *int                `json:"idle_timeout_secs,omitempty" minimum:"1"`
}

// Exec is the part of the request that says what to run. Without sandbox_id limits, env and directory belong to Create.
func (r ExecuteRequest) Exec() ExecRequest {
	e := ExecRequest{
		Code: r.Code, Command: r.Command, Language: r.Language, Deps: r.Deps, TimeoutSecs: r.TimeoutSecs,
		Stdin: r.Stdin, StdinEncoding: r.StdinEncoding, StdinOpen: r.StdinOpen, Args: r.Args, User: r.User, Files: r.Files, Collect: r.Collect,
		OutputEncoding: r.OutputEncoding, MaxOutputBytes: r.MaxOutputBytes, OnDisconnect: r.OnDisconnect,
		Background: r.Background,
	}
	if r.SandboxID != nil {
		e.ResourceLimits, e.Env, e.WorkingDir = r.ResourceLimits, r.Env, r.WorkingDir
	}
	return e
}

// Create is the part of the request that says where to run it.
func (r ExecuteRequest) Create() CreateRequest {
	return CreateRequest{
		Language: r.Language, Image: r.Image, CreateWaitSecs: r.CreateWaitSecs, Mode: r.Mode, ResourceLimits: r.ResourceLimits,
		Env: r.Env, WorkingDir: r.WorkingDir, DiskSizeGB: r.DiskSizeGB, DiskMountPath: r.DiskMountPath, Ports: r.Ports,
		Security: r.Security, HealthCheck: r.HealthCheck, Network: r.Network, Name: r.Name, Labels: r.Labels,
		MaxConcurrency: r.MaxConcurrency, TTLSecs: r.TTLSecs, IdleTimeoutSecs: r.IdleTimeoutSecs,
	}
}

// ExecResult is how one program ended, with its output.
type ExecResult struct {
	ID                string                 `json:"id"`
	SandboxID         string                 `json:"sandbox_id"`
	Stdout            string                 `json:"stdout"` // text with U+FFFD for what is none, or base64
	Stderr            string                 `json:"stderr"`
	ExitCode          int                    `json:"exit_code"` // 128+n for a signal, 124 for the deadline, 137 for the memory limit
	Signal            *string                `json:"signal"`    // SIGKILL
	TerminationReason TerminationReason      `json:"termination_reason"`
	TimedOut          bool                   `json:"timed_out"`
	OOMKilled         bool                   `json:"oom_killed"`
	StdoutTruncated   bool                   `json:"stdout_truncated"`
	StderrTruncated   bool                   `json:"stderr_truncated"`
	StdoutBytes       int64                  `json:"stdout_bytes"` // what the program wrote, beyond the limit too
	StderrBytes       int64                  `json:"stderr_bytes"`
	DurationMS        float64                `json:"duration_ms"`
	Start             string                 `json:"start"` // warm or cold
	Timings           Timings                `json:"timings"`
	Usage             Usage                  `json:"usage"`
	Files             map[string]FileContent `json:"files"`
	DepsResolved      []string               `json:"deps_resolved"`
	Isolation         Isolation              `json:"isolation"`
}

// FileContent is a file's bytes. It travels as text, or as {"base64": "…"} where the bytes are no UTF-8.
type FileContent []byte

type base64File struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON writes text where the bytes are text.
func (f FileContent) MarshalJSON() ([]byte, error) {
	if utf8.Valid(f) {
		return json.Marshal(string(f))
	}
	return json.Marshal(base64File{f})
}

// UnmarshalJSON reads both forms.
func (f *FileContent) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var text string
		err := json.Unmarshal(b, &text)
		*f = FileContent(text)
		return err
	}
	var in base64File
	err := json.Unmarshal(b, &in)
	*f = in.Base64
	return err
}

// Decode takes a value that was already parsed: a string, or an object with the one name base64.
// It says in words what is wrong, "" when nothing is.
func (f *FileContent) Decode(v any) (wrong string) {
	const want = `must be text or {"base64": "…"}`
	switch v := v.(type) {
	case string:
		*f = FileContent(v)
	case map[string]any:
		text, is := v["base64"].(string)
		if !is || len(v) != 1 {
			return want
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "is not valid base64"
		}
		*f = raw
	default:
		return want
	}
	return ""
}
