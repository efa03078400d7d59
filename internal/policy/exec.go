package policy

import (
	"encoding/base64"
	"fmt"
	"slices"

	"outpost.run/outpost/sandbox"
)

// Exec is what an exec request amounts to: all is set, but Code or Command alone.
type Exec struct {
	Code           *string
	Command        []string
	Language       string
	Deps           []string // names of packages with versions, each once
	Args           []string
	Env            [][2]string
	Stdin          []byte
	User           string // "" the sandbox's
	WorkingDir     string // "" the sandbox's
	Files          map[string]sandbox.FileContent
	Collect        []string
	Limits         sandbox.Limits
	MaxOutputBytes int
	Base64Output   bool
	OnDisconnect   string // kill, keep, or "" where the request does not say
	Background     bool
	StdinOpen      bool // more comes while it runs
}

// defaultOutputBytes is what is kept of a stream unless the request says more.
const defaultOutputBytes = 1 << 20

// Exec applies the policy to an exec in a sandbox of that language and those limits. faults are those that reading the
// request gave; all of both are listed.
//
// Errors, the first that applies: Invalid, PolicyFloor, UnsupportedLanguage.
func (p Policy) Exec(r sandbox.ExecRequest, language string, of sandbox.Limits, faults sandbox.Faults) (Exec, error) {
	e := Exec{
		Code: r.Code, Command: r.Command, Language: language, Args: r.Args, Env: r.Env, Files: r.Files, Collect: r.Collect,
		Limits: p.lower(of, r.ResourceLimits, r.TimeoutSecs, &faults), MaxOutputBytes: defaultOutputBytes,
	}
	if r.ResourceLimits != nil && r.ResourceLimits.GPU != nil {
		faults.Add("resource_limits.gpu", "belongs to create: a sandbox's GPUs are there for all its execs")
	}
	var below sandbox.Faults
	checkProgram(r, &faults)
	checkEnv("env", r.Env, &faults)
	e.Stdin = stdin(r, &faults)
	if r.User != nil {
		e.User = *r.User
		checkUser("user", e.User, &faults)
		if isRoot(e.User) && rank(p.Floor) > rank(sandbox.Development) {
			below.Add("user", "root goes below the operator's floor, which is preset %s", p.Floor)
		}
	}
	if r.WorkingDir != nil {
		e.WorkingDir = checkDir("working_dir", *r.WorkingDir, &faults)
	}
	for name := range r.Files {
		checkPath(sandbox.Field("files", name), name, &faults)
	}
	for i, name := range r.Collect {
		checkPathAt("collect", i, name, &faults)
	}
	if r.Language != nil {
		language = *r.Language
	}
	e.Deps = checkDeps(r.Deps, language, &faults)
	if r.MaxOutputBytes != nil {
		e.MaxOutputBytes = *r.MaxOutputBytes
	}
	e.Base64Output = r.OutputEncoding != nil && *r.OutputEncoding == "base64"
	if r.OnDisconnect != nil {
		e.OnDisconnect = *r.OnDisconnect
	}
	e.StdinOpen = r.StdinOpen != nil && *r.StdinOpen
	if r.Background != nil && *r.Background {
		e.Background = true
		if r.TimeoutSecs == nil && (r.ResourceLimits == nil || r.ResourceLimits.TimeoutMS == nil) {
			e.Limits.TimeoutMS = 0 // a server is to run until somebody ends it
		}
	}
	return e, p.verdictOfExec(r, &e, faults, below)
}

func (p Policy) verdictOfExec(r sandbox.ExecRequest, e *Exec, faults, below sandbox.Faults) error {
	if err := sorted(faults).Err(sandbox.Invalid); err != nil {
		return err
	}
	if err := below.Err(sandbox.PolicyFloor); err != nil {
		return err
	}
	if r.Language != nil {
		e.Language = *r.Language
		if err := p.checkLanguage(e.Language); err != nil {
			return err
		}
	}
	return nil
}

func checkProgram(r sandbox.ExecRequest, faults *sandbox.Faults) {
	switch {
	case r.Code == nil && r.Command == nil:
		if !faults.Has("command") {
			faults.Add("code", "is required, or command")
		}
	case r.Code != nil && r.Command != nil:
		faults.Add("command", "stands instead of code; give one of the two")
	case r.Code != nil:
		noNUL("code", *r.Code, faults)
	case len(r.Command) == 0:
		faults.Add("command", "must name a program")
	case r.Command[0] == "":
		faults.Add("command[0]", "must not be empty")
	}
	if r.Command != nil && len(r.Args) > 0 {
		faults.Add("args", "belong to code; put them into command")
	}
	for i, word := range r.Command {
		noNUL(fmt.Sprintf("command[%d]", i), word, faults)
	}
	for i, word := range r.Args {
		noNUL(fmt.Sprintf("args[%d]", i), word, faults)
	}
}

func stdin(r sandbox.ExecRequest, faults *sandbox.Faults) []byte {
	switch {
	case r.Stdin == nil:
		return nil
	case r.StdinEncoding != nil && *r.StdinEncoding == "base64":
		raw, err := base64.StdEncoding.DecodeString(*r.Stdin)
		if err != nil {
			faults.Add("stdin", "is not valid base64")
		}
		return raw
	}
	return []byte(*r.Stdin)
}

func checkPathAt(field string, i int, name string, faults *sandbox.Faults) {
	at := fmt.Sprintf("%s[%d]", field, i)
	if !faults.Has(at) { // no string: said already
		checkPath(at, name, faults)
	}
}

// ExecutesElsewhere notes the fields of create that a request with sandbox_id must leave out.
func ExecutesElsewhere(r sandbox.ExecuteRequest, faults *sandbox.Faults) {
	const reason = "belongs to create and can't be given with sandbox_id"
	given := map[string]bool{
		"image": r.Image != nil, "create_wait_secs": r.CreateWaitSecs != nil, "mode": r.Mode != nil,
		"disk_size_gb": r.DiskSizeGB != nil, "disk_mount_path": r.DiskMountPath != nil, "ports": r.Ports != nil,
		"security": r.Security != nil, "health_check": r.HealthCheck != nil, "network": r.Network != nil,
		"name": r.Name != nil, "labels": r.Labels != nil, "max_concurrency": r.MaxConcurrency != nil,
		"ttl_secs": r.TTLSecs != nil, "idle_timeout_secs": r.IdleTimeoutSecs != nil,
	}
	fields := make([]string, 0, len(given))
	for field := range given {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	for _, field := range fields {
		if given[field] {
			faults.Add(field, reason)
		}
	}
}
