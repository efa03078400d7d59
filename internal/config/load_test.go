package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/sandbox"
)

func load(t *testing.T, yaml string, env, flags map[string]string) (config.Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "outpost.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	look := func(m map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
	}
	return config.Load(config.Sources{File: file, Env: look(env), Flags: look(flags)})
}

func TestFlagsOverVariablesOverTheFile(t *testing.T) {
	file := "listen: 127.0.0.1:1\nrate_limit: {per_minute: 1, burst: 1}\nimages:\n  python: \"deb:bookworm?include=python3\"\n"
	env := map[string]string{"OUTPOST_LISTEN": "127.0.0.1:2", "OUTPOST_RATE_LIMIT_BURST": "2", "OUTPOST_POLICY_DEFAULTS_CPU_CORES": "0.5",
		"OUTPOST_IMAGES_LOCAL_ROOTS": "[/a, /b]", "OUTPOST_DATA_DIR": "0123"}
	c, err := load(t, file, env, map[string]string{"listen": "127.0.0.1:3", "policy-allow-seccomp-disabled": "true", "jobs-callback-allow": "10.0.0.0/8, 127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Listen, c.RateLimit.PerMinute, c.RateLimit.Burst, c.Policy.Defaults.CPUCores, len(c.Images.LocalRoots), c.DataDir, c.Policy.AllowSeccompDisabled, c.Images.Python, c.Images.Bash, c.DrainSecs, len(c.Jobs.CallbackAllow)}
	want := []any{"127.0.0.1:3", 1, 2, 0.5, 2, "0123", true, "deb:bookworm?include=python3", "deb:trixie", 30, 2}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("value %d: %v, want %v", i, got[i], want[i])
		}
	}
}

func TestEveryFaultIsListedWithItsPlace(t *testing.T) {
	file := `listen: nowhere
polcy: {}
policy:
  floor: {preset: lax}
  defaults:
    memory_mb: "512"
    pids: 9999
rate_limit:
  per_minute: -1
images: {store_gb: 20, pyton: x}
metrics: {access: everyone}
`
	_, err := load(t, file, map[string]string{"OUTPOST_DRAIN_SECS": "soon"}, map[string]string{"log-level": "loud"})
	if err == nil {
		t.Fatal("it was taken")
	}
	for _, want := range []string{
		".yaml:1: listen: must be HOST:PORT", ".yaml:2: polcy: is not known; did you mean policy?", ".yaml:4: policy.floor.preset: must be one of",
		".yaml:6: policy.defaults.memory_mb: must be an integer", ".yaml:7: policy.defaults.pids: is over policy.maximum.pids", ".yaml:9: rate_limit.per_minute: must be at least 0",
		".yaml:10: images.pyton: is not known; did you mean python?", ".yaml:11: metrics.access: must be one of", "OUTPOST_DRAIN_SECS: drain_secs: must be an integer", "--log-level: log.level: must be one of",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("lacks %q:\n%v", want, err)
		}
	}
}

func TestWhatIsNoConfigurationSaysSo(t *testing.T) {
	for name, file := range map[string]string{"no YAML": "a: [", "a list": "- a", "a word": "x", "a key twice": "listen: a:1\nlisten: b:1"} {
		if _, err := load(t, file, nil, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := config.Load(config.Sources{File: "/nowhere/outpost.yaml"}); err == nil {
		t.Error("a file that is not there was taken")
	}
}

func TestAnEmptyFileIsTheDefaults(t *testing.T) {
	for _, file := range []string{"", "{}", "# nothing\n", "policy:\n", `{"engines": {"container": {}}}`} {
		c, err := load(t, file, nil, nil)
		if err != nil || c.Listen != config.Default().Listen || c.ForPolicy().Floor != sandbox.Development {
			t.Errorf("%q: %+v, %v", file, c, err)
		}
	}
}

func TestWhereTheServerTellsOfItselfIsJudged(t *testing.T) {
	for file, want := range map[string]string{
		`audit: {required: true}`:                                                        "audit.required: needs audit.file",
		`audit: {file: audit.log}`:                                                       "audit.file: must be an absolute path",
		`audit: {file: "-", required: true}`:                                             "",
		`audit: {file: /var/log/audit.log}`:                                              "",
		`tracing: {endpoint: "localhost:4318"}`:                                          "tracing.endpoint: must be http://HOST:PORT",
		`tracing: {endpoint: "grpc://localhost:4317"}`:                                   "tracing.endpoint",
		`tracing: {endpoint: "http://user:word@localhost:4318"}`:                         "credentials go into tracing.headers",
		`tracing: {sample: 2}`:                                                           "tracing.sample: must be at most 1",
		`tracing: {headers: {"a b": x}}`:                                                 `tracing.headers`,
		`tracing: {headers: {A: "x\ny"}}`:                                                "tracing.headers.A: is no header",
		`tracing: {endpoint: "http://[::1]:4318", headers: {Authorization: "Bearer x"}}`: "",
	} {
		c, err := load(t, file, nil, nil)
		if said := fmt.Sprint(err); err == nil && want != "" || !strings.Contains(said, want) || err != nil && want == "" {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
		if c.Tracing.Sample != 1 && c.Tracing.Sample != 2 {
			t.Errorf("%s: sample is %v", file, c.Tracing.Sample)
		}
	}
	c, err := load(t, "", nil, map[string]string{"tracing-headers": `{Authorization: Bearer x}`, "tracing-endpoint": "http://c:4318"})
	if err != nil || c.Tracing.Headers["Authorization"] != "Bearer x" || c.Tracing.Endpoint != "http://c:4318" {
		t.Errorf("%+v, %v", c.Tracing, err)
	}
}
