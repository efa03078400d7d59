package policy

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"outpost.run/outpost/sandbox"
)

// Sandbox is what a create request amounts to: all is set.
type Sandbox struct {
	Language       string
	Image          string
	CreateWait     time.Duration
	Mode           sandbox.Mode
	Limits         sandbox.Limits
	Env            [][2]string
	WorkingDir     string
	Security       sandbox.Security
	Network        sandbox.Network
	Ports          []sandbox.Port
	Disk           *Disk
	Health         sandbox.HealthCheck
	TTLSecs        *int
	IdleSecs       *int
	Name           string
	Labels         map[string]string
	MaxConcurrency int
	Unsaid         Unsaid
}

// Unsaid is what the request leaves to the image, which may say better than the default.
type Unsaid struct {
	User       bool // security.user
	Preset     bool // security.preset, where the operator's floor does not speak in its stead
	WorkingDir bool
}

const (
	defaultDir         = "/workspace"
	defaultCreateWait  = 60 * time.Second
	defaultConcurrency = 16
)

// Create applies the policy to a create request. faults are those that reading it gave; all of both are listed.
//
// Errors, the first that applies: Invalid, PolicyFloor, UnsupportedLanguage, NotSupported, MicroVMUnavailable.
func (p Policy) Create(r sandbox.CreateRequest, faults sandbox.Faults) (Sandbox, error) {
	var below sandbox.Faults
	s := Sandbox{
		CreateWait: defaultCreateWait, Mode: sandbox.Ephemeral, Limits: p.limits(r.ResourceLimits, &faults), Env: r.Env,
		WorkingDir: defaultDir, Security: p.security(r.Security, &faults, &below),
		Labels: r.Labels, MaxConcurrency: defaultConcurrency,
		Ports: ports(r.Ports, &faults), Disk: p.disk(r, &faults), Health: health(r.HealthCheck, &faults),
		TTLSecs: r.TTLSecs, IdleSecs: r.IdleTimeoutSecs,
	}
	s.Network = p.network(r.Network, s.Security.Preset, &faults, &below)
	if r.Language == nil {
		faults.Add("language", "is required; this server has %s", strings.Join(p.Languages(), ", "))
	} else {
		s.Language, s.Image = *r.Language, p.Images[*r.Language]
	}
	if r.Image != nil {
		s.Image = *r.Image
	}
	s.Unsaid = Unsaid{
		User: r.Security == nil || r.Security.User == nil, Preset: (r.Security == nil || r.Security.Preset == nil) && s.Security.Preset == sandbox.Standard,
		WorkingDir: r.WorkingDir == nil,
	}
	if r.CreateWaitSecs != nil {
		s.CreateWait = time.Duration(*r.CreateWaitSecs) * time.Second
	}
	if r.Mode != nil {
		s.Mode = sandbox.Mode(*r.Mode)
	}
	if s.Health.Command != nil && s.Mode != sandbox.Stateful {
		faults.Add("health_check.command", "needs mode stateful: between its execs an ephemeral sandbox has no machine to run it in")
	}
	if r.WorkingDir != nil {
		s.WorkingDir = checkDir("working_dir", *r.WorkingDir, &faults)
		for _, dir := range []string{"/proc", "/sys", "/dev"} {
			if s.WorkingDir == dir || strings.HasPrefix(s.WorkingDir, dir+"/") {
				faults.Add("working_dir", "must not be in %s, where nothing can be made; choose another, for example /workspace", dir)
			}
		}
	}
	if r.Name != nil {
		s.Name = *r.Name
	}
	if r.MaxConcurrency != nil {
		s.MaxConcurrency = *r.MaxConcurrency
	}
	checkEnv("env", r.Env, &faults)
	checkNameAndLabels(r.Name, r.Labels, &faults)
	checkGPU(r.ResourceLimits, &faults)
	checkImage(r.Image, &faults)
	return s, p.verdict(r, faults, below, s.Security)
}

func (p Policy) verdict(r sandbox.CreateRequest, faults, below sandbox.Faults, s sandbox.Security) error {
	if err := sorted(faults).Err(sandbox.Invalid); err != nil {
		return err
	}
	if err := below.Err(sandbox.PolicyFloor); err != nil {
		return err
	}
	if err := p.checkLanguage(*r.Language); err != nil {
		return err
	}
	if s.JailerEnabled && p.MicroVM != "" {
		f := sandbox.Faults{{Field: "security.jailer_enabled", Reason: p.MicroVM}}
		return f.Err(sandbox.MicroVMUnavailable)
	}
	return nil
}

var gpu = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,32}:[1-9][0-9]{0,2}$`)

func checkGPU(r *sandbox.LimitsRequest, faults *sandbox.Faults) {
	if r != nil && r.GPU != nil && !gpu.MatchString(*r.GPU) {
		faults.Add("resource_limits.gpu", "must be TYPE:COUNT, for example T4:1")
	}
}

func sorted(f sandbox.Faults) sandbox.Faults {
	slices.SortStableFunc(f, func(a, b sandbox.Detail) int { return strings.Compare(a.Field, b.Field) })
	return f
}
