package policy

import (
	"slices"
	"strconv"
	"strings"

	"outpost.run/outpost/sandbox"
)

// presets are ordered from the widest to the narrowest.
var presets = []sandbox.Preset{sandbox.Development, sandbox.Standard, sandbox.Maximum}

var presetUser = map[sandbox.Preset]string{
	sandbox.Development: "root", // of its own user namespace
	sandbox.Standard:    "sandbox",
	sandbox.Maximum:     "65534",
}

func rank(p sandbox.Preset) int { return slices.Index(presets, p) }

// security fills in what the request leaves out and notes in below what lies under the operator's floor.
func (p Policy) security(r *sandbox.SecurityRequest, faults, below *sandbox.Faults) sandbox.Security {
	if r == nil {
		r = &sandbox.SecurityRequest{}
	}
	preset := sandbox.Standard
	if rank(p.Floor) > rank(preset) {
		preset = p.Floor // a default follows the floor; only what a client says can go against it
	}
	if r.Preset != nil {
		if preset = sandbox.Preset(*r.Preset); rank(preset) < rank(p.Floor) {
			below.Add("security.preset", "%s is below the operator's floor, which is %s", preset, p.Floor)
		}
	}
	s := sandbox.Security{SeccompEnabled: true, JailerEnabled: p.MicroVMDefault, User: presetUser[preset], Preset: preset}
	if r.SeccompEnabled != nil && !*r.SeccompEnabled {
		s.SeccompEnabled = false
		if !p.AllowSeccompDisabled {
			below.Add("security.seccomp_enabled", "false goes below the operator's floor, which is true; policy.allow_seccomp_disabled would allow it")
		}
	}
	if r.JailerEnabled != nil {
		s.JailerEnabled = *r.JailerEnabled
	}
	if r.User != nil {
		s.User = *r.User
		checkUser("security.user", s.User, faults)
		if isRoot(s.User) && rank(p.Floor) > rank(sandbox.Development) {
			below.Add("security.user", "root goes below the operator's floor, which is preset %s", p.Floor)
		}
	}
	return s
}

func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	uid, err := strconv.Atoi(name)
	return name == "root" || err == nil && uid == 0
}

// maxID is the highest uid and gid that a machine maps.
const maxID = 65535

// checkUser wants name, uid or uid:gid; whether the image has that name is for the runtime to say.
func checkUser(field, user string, faults *sandbox.Faults) {
	const want = "must be a name, a uid or uid:gid, with ids from 0 to 65535"
	id := func(text string) bool {
		n, err := strconv.ParseUint(text, 10, 32)
		return err == nil && n <= maxID && text[0] != '+'
	}
	first, second, pair := strings.Cut(user, ":")
	switch {
	case pair && id(first) && id(second), !pair && id(first), !pair && isName(first):
	default:
		faults.Add(field, want)
	}
}

func isName(s string) bool {
	if s == "" || len(s) > 32 || s[0] == '-' || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for _, c := range s {
		if !(c == '_' || c == '-' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return true
}
