package policy_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

type create = sandbox.CreateRequest

func python(change func(*create)) create {
	r := create{Language: new("python")}
	if change != nil {
		change(&r)
	}
	return r
}

// fieldsOf are the fields that an error names.
func fieldsOf(err error) []string {
	e, _ := errors.AsType[*sandbox.Error](err)
	if e == nil {
		return nil
	}
	var fields []string
	for _, d := range e.Details {
		fields = append(fields, d.Field)
	}
	return fields
}

func TestCreateRefusals(t *testing.T) {
	narrow := policy.Default()
	narrow.Floor = sandbox.Standard
	highest := policy.Default()
	highest.Floor = sandbox.Maximum
	few := policy.Default()
	few.Images = map[string]string{"python": "deb:trixie"}
	open := policy.Default()
	open.AllowSeccompDisabled = true
	for _, tc := range []struct {
		name   string
		policy policy.Policy
		req    create
		code   sandbox.Code
		fields []string
	}{
		{"nothing wrong", policy.Default(), python(nil), "", nil},
		{"five faults at once", policy.Default(), create{
			ResourceLimits: &sandbox.LimitsRequest{MemoryMB: new(9000), CPUCores: new(9.0)}, WorkingDir: new("x"),
			Env: [][2]string{{"A", "1"}, {"A", "2"}},
		}, sandbox.Invalid, []string{"env[1][0]", "language", "resource_limits.cpu_cores", "resource_limits.memory_mb", "working_dir"}},
		{"names of env", policy.Default(), python(func(r *create) { r.Env = [][2]string{{"", ""}, {"A=B", ""}, {"1A", ""}, {"OK", "a\x00"}} }),
			sandbox.Invalid, []string{"env[0][0]", "env[1][0]", "env[2][0]", "env[3][1]"}},
		{"too many pairs", policy.Default(), python(func(r *create) { r.Env = make([][2]string, 257) }), sandbox.Invalid, []string{"env"}},
		{"too long values", policy.Default(), python(func(r *create) { r.Env = [][2]string{{"A", string(make([]byte, 0))}, {"B", long(64 << 10)}} }), sandbox.Invalid, []string{"env"}},
		{"detours in a directory", policy.Default(), python(func(r *create) { r.WorkingDir = new("/a/../b") }), sandbox.Invalid, []string{"working_dir"}},
		{"a user that can't be", policy.Default(), python(func(r *create) { r.Security = &sandbox.SecurityRequest{User: new("0:x")} }), sandbox.Invalid, []string{"security.user"}},
		{"an id that no machine maps", policy.Default(), python(func(r *create) { r.Security = &sandbox.SecurityRequest{User: new("65536")} }), sandbox.Invalid, []string{"security.user"}},
		{"a label", policy.Default(), python(func(r *create) { r.Labels = map[string]string{"a:b": ""} }), sandbox.Invalid, []string{`labels["a:b"]`}},
		{"the same port twice", policy.Default(), python(func(r *create) { r.Ports = []sandbox.PortRequest{{GuestPort: new(80)}, {GuestPort: new(80)}} }), sandbox.Invalid, []string{"ports[1].guest_port"}},
		{"a language nobody knows", policy.Default(), create{Language: new("cobol")}, sandbox.UnsupportedLanguage, []string{"language"}},
		{"a language not served", few, create{Language: new("go")}, sandbox.UnsupportedLanguage, []string{"language"}},
		{"no image", policy.Default(), python(func(r *create) { r.Image = new("") }), sandbox.Invalid, []string{"image"}},
		{"an image of two words", policy.Default(), python(func(r *create) { r.Image = new("a b") }), sandbox.Invalid, []string{"image"}},
		{"an image of a registry", policy.Default(), python(func(r *create) { r.Image = new("a/b:1") }), "", nil},
		{"a wrong value of a field not served", policy.Default(), python(func(r *create) { r.ResourceLimits = &sandbox.LimitsRequest{GPU: new("T4")} }), sandbox.Invalid, []string{"resource_limits.gpu"}},
		{"egress none", policy.Default(), python(func(r *create) { r.Network = &sandbox.NetworkRequest{Egress: new("none")} }), "", nil},
		{"a list without egress allow", policy.Default(), python(func(r *create) { r.Network = &sandbox.NetworkRequest{Allow: []string{"a.example"}} }), sandbox.Invalid, []string{"network.allow"}},
		{"egress allow without a list", policy.Default(), python(func(r *create) { r.Network = &sandbox.NetworkRequest{Egress: new("allow")} }), sandbox.Invalid, []string{"network.allow"}},
		{"what can't be a destination", policy.Default(), python(func(r *create) {
			r.Network = &sandbox.NetworkRequest{Egress: new("allow"), Allow: []string{"a.example", "10.0.0.0/8", "a\x00.b", "*.c:443"}}
		}), sandbox.Invalid, []string{"network.allow[1]", "network.allow[2]"}},
		{"egress below the floor", highest, python(func(r *create) { r.Network = &sandbox.NetworkRequest{Egress: new("public")} }), sandbox.PolicyFloor, []string{"network.egress"}},
		{"too many ports", policy.Default(), python(func(r *create) { r.Ports = make([]sandbox.PortRequest, 65) }), sandbox.Invalid, []string{"ports"}},
		{"a microVM", policy.Default(), python(func(r *create) { r.Security = &sandbox.SecurityRequest{JailerEnabled: new(true)} }), sandbox.MicroVMUnavailable, []string{"security.jailer_enabled"}},
		{"no seccomp", policy.Default(), python(func(r *create) { r.Security = &sandbox.SecurityRequest{SeccompEnabled: new(false)} }), sandbox.PolicyFloor, []string{"security.seccomp_enabled"}},
		{"no seccomp, allowed", open, python(func(r *create) { r.Security = &sandbox.SecurityRequest{SeccompEnabled: new(false)} }), "", nil},
		{"a preset below the floor", narrow, python(func(r *create) { r.Security = &sandbox.SecurityRequest{Preset: new("development")} }), sandbox.PolicyFloor, []string{"security.preset"}},
		{"root below the floor", narrow, python(func(r *create) { r.Security = &sandbox.SecurityRequest{User: new("0:0")} }), sandbox.PolicyFloor, []string{"security.user"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := tc.policy.Create(tc.req, nil)
			if sandbox.CodeOf(err) != tc.code || !slices.Equal(fieldsOf(err), tc.fields) {
				t.Errorf("Create = %v, want code %q and fields %q", err, tc.code, tc.fields)
			}
		})
	}
}

func long(n int) string { return string(slices.Repeat([]byte("x"), n)) }

func TestWhatIsLeftOutIsFilledIn(t *testing.T) {
	got, err := policy.Default().Create(python(nil), nil)
	want := policy.Sandbox{
		Language: "python", Image: "deb:trixie?include=python3", CreateWait: 60e9, Mode: sandbox.Ephemeral,
		Limits: sandbox.Limits{MemoryMB: 512, CPUCores: 1, TimeoutMS: 30000, DiskMB: 512, Pids: 256}, WorkingDir: "/workspace",
		Security: sandbox.Security{SeccompEnabled: true, User: "sandbox", Preset: sandbox.Standard},
		Unsaid:   policy.Unsaid{User: true, Preset: true, WorkingDir: true}, Network: sandbox.Network{Egress: "public", Allow: []string{}}, MaxConcurrency: 16, Ports: []sandbox.Port{},
		Health: sandbox.HealthCheck{IntervalSecs: 30, TimeoutSecs: 10, Retries: 3, StartPeriodSecs: 60},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("(-want +got):\n%s%v", diff, err)
	}
}

func TestPresets(t *testing.T) {
	high := policy.Default()
	high.Floor = sandbox.Maximum
	for _, tc := range []struct {
		name   string
		policy policy.Policy
		req    *sandbox.SecurityRequest
		want   sandbox.Security
	}{
		{"development is root inside", policy.Default(), &sandbox.SecurityRequest{Preset: new("development")}, sandbox.Security{SeccompEnabled: true, User: "root", Preset: sandbox.Development}},
		{"maximum is nobody", policy.Default(), &sandbox.SecurityRequest{Preset: new("maximum")}, sandbox.Security{SeccompEnabled: true, User: "65534", Preset: sandbox.Maximum}},
		{"a field wins over its preset", policy.Default(), &sandbox.SecurityRequest{Preset: new("maximum"), User: new("7:8")}, sandbox.Security{SeccompEnabled: true, User: "7:8", Preset: sandbox.Maximum}},
		{"the default follows the floor", high, nil, sandbox.Security{SeccompEnabled: true, User: "65534", Preset: sandbox.Maximum}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.policy.Create(python(func(r *create) { r.Security = tc.req }), nil)
			if egress := map[bool]string{true: "none", false: "public"}[tc.want.Preset == sandbox.Maximum]; got.Network.Egress != egress {
				t.Errorf("egress is %s", got.Network.Egress)
			}
			if got.Security != tc.want || err != nil {
				t.Errorf("security = %+v, %v, want %+v", got.Security, err, tc.want)
			}
		})
	}
}

func TestExecLimits(t *testing.T) {
	of := sandbox.Limits{MemoryMB: 512, CPUCores: 1, TimeoutMS: 30000, DiskMB: 512, Pids: 256}
	limits := func(change func(*sandbox.LimitsRequest)) *sandbox.LimitsRequest {
		var l sandbox.LimitsRequest
		change(&l)
		return &l
	}
	for _, tc := range []struct {
		name  string
		req   sandbox.ExecRequest
		want  func(*sandbox.Limits)
		field string // "" = no error
	}{
		{"unset means the sandbox's", sandbox.ExecRequest{}, func(*sandbox.Limits) {}, ""},
		{"lower", sandbox.ExecRequest{ResourceLimits: limits(func(l *sandbox.LimitsRequest) { l.MemoryMB = new(100) })}, func(l *sandbox.Limits) { l.MemoryMB = 100 }, ""},
		{"higher", sandbox.ExecRequest{ResourceLimits: limits(func(l *sandbox.LimitsRequest) { l.Pids = new(257) })}, nil, "resource_limits.pids"},
		{"the time may be longer", sandbox.ExecRequest{ResourceLimits: limits(func(l *sandbox.LimitsRequest) { l.TimeoutMS = new(60000) })}, func(l *sandbox.Limits) { l.TimeoutMS = 60000 }, ""},
		{"but not over the maximum", sandbox.ExecRequest{TimeoutSecs: new(3601)}, nil, "timeout_secs"},
		{"secs win over ms", sandbox.ExecRequest{TimeoutSecs: new(2), ResourceLimits: limits(func(l *sandbox.LimitsRequest) { l.TimeoutMS = new(9) })}, func(l *sandbox.Limits) { l.TimeoutMS = 2000 }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.req.Code = new("1")
			got, err := policy.Default().Exec(tc.req, "python", of, nil)
			if tc.field != "" {
				if sandbox.CodeOf(err) != sandbox.Invalid || !slices.Equal(fieldsOf(err), []string{tc.field}) {
					t.Errorf("Exec = %v, want a fault of %s", err, tc.field)
				}
				return
			}
			want := of
			tc.want(&want)
			if got.Limits != want || err != nil {
				t.Errorf("limits = %+v, %v, want %+v", got.Limits, err, want)
			}
		})
	}
}

func TestExecRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		req    sandbox.ExecRequest
		code   sandbox.Code
		fields []string
	}{
		{"no program", sandbox.ExecRequest{}, sandbox.Invalid, []string{"code"}},
		{"empty code is a program", sandbox.ExecRequest{Code: new("")}, "", nil},
		{"two programs", sandbox.ExecRequest{Code: new("1"), Command: []string{"ls"}}, sandbox.Invalid, []string{"command"}},
		{"no words", sandbox.ExecRequest{Command: []string{}}, sandbox.Invalid, []string{"command"}},
		{"NUL", sandbox.ExecRequest{Code: new("a\x00"), Args: []string{"", "b\x00"}, Files: map[string]sandbox.FileContent{"c\x00": nil}, Collect: []string{""}},
			sandbox.Invalid, []string{"args[1]", "code", "collect[0]", `files["c\x00"]`}},
		{"arguments of a command", sandbox.ExecRequest{Command: []string{"ls"}, Args: []string{"x"}}, sandbox.Invalid, []string{"args"}},
		{"bad base64", sandbox.ExecRequest{Code: new(""), Stdin: new("?"), StdinEncoding: new("base64")}, sandbox.Invalid, []string{"stdin"}},
		{"another language", sandbox.ExecRequest{Code: new(""), Language: new("bash")}, "", nil},
		{"an unknown one", sandbox.ExecRequest{Code: new(""), Language: new("cobol")}, sandbox.UnsupportedLanguage, []string{"language"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := policy.Default().Exec(tc.req, "python", sandbox.Limits{TimeoutMS: 1}, nil)
			if sandbox.CodeOf(err) != tc.code || !slices.Equal(fieldsOf(err), tc.fields) {
				t.Errorf("Exec = %v, want code %q and fields %q", err, tc.code, tc.fields)
			}
		})
	}
}
