// Package config reads what the operator says: flags over OUTPOST_… variables over a YAML file over defaults. Whatever
// is unknown or wrong in any of them is listed at once, with the place where it stands.
package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tags.cncf.io/container-device-interface/pkg/parser"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// Config is the configuration file; each key is also a flag (--rate-limit-burst) and a variable
// (OUTPOST_RATE_LIMIT_BURST).
type Config struct {
	Listen    string              `json:"listen" doc:"address to listen on; port 0 takes a free one"`
	DataDir   string              `json:"data_dir" doc:"where everything that outlives the server is kept"`
	RateLimit RateLimit           `json:"rate_limit"`
	Policy    Policy              `json:"policy"`
	Images    Images              `json:"images"`
	Deps      Deps                `json:"deps"`
	Compiled  Compiled            `json:"compiled"`
	Output    Output              `json:"output"`
	GPUs      map[string][]string `json:"gpus" doc:"CDI device names by kind of GPU"`
	CDIDirs   []string            `json:"cdi_dirs" doc:"folders of CDI specifications; /etc/cdi and /var/run/cdi unless given"`
	Disk      Disk                `json:"disk"`
	DrainSecs int                 `json:"drain_secs" minimum:"0" doc:"time that execs under way have when the server stops"`
	Ports     Ports               `json:"ports"`
	Engines   Engines             `json:"engines"`
	Pool      Pool                `json:"pool"`
	Jobs      Jobs                `json:"jobs"`
	Log       Log                 `json:"log"`
	Metrics   Metrics             `json:"metrics"`
	Audit     Audit               `json:"audit"`
	Tracing   Tracing             `json:"tracing"`
}

// RateLimit is what one credential may call.
type RateLimit struct {
	PerMinute int `json:"per_minute" minimum:"0" maximum:"10000000" doc:"calls a minute; 0 switches rate limits off"`
	Burst     int `json:"burst" minimum:"0" maximum:"1000000" doc:"calls at once, before the limit a minute counts"`
}

// Policy is what requests are held against.
type Policy struct {
	AllowSeccompDisabled bool     `json:"allow_seccomp_disabled" doc:"whether a request may switch the system call filter off"`
	Floor                Floor    `json:"floor"`
	Defaults             Defaults `json:"defaults"`
	Maximum              Maximum  `json:"maximum"`
	Quota                Quota    `json:"quota"`
}

// Floor is what no request goes below.
type Floor struct {
	Preset string `json:"preset" enum:"development,standard,maximum" doc:"the widest preset that a request may ask for"`
}

// Defaults are the limits of a request that names none.
type Defaults struct {
	MemoryMB  int     `json:"memory_mb" minimum:"16" doc:"MiB of memory, of a request that names none"`
	CPUCores  float64 `json:"cpu_cores" minimum:"0.01" doc:"cores, may be fractional, of a request that names none"`
	TimeoutMS int     `json:"timeout_ms" minimum:"1" doc:"time of one exec in ms, of a request that names none"`
	DiskMB    int     `json:"disk_mb" minimum:"1" doc:"MiB of written files, of a request that names none"`
	Pids      int     `json:"pids" minimum:"1" doc:"processes and threads, of a request that names none"`
}

// Maximum is the most that a request may ask for.
type Maximum struct {
	MemoryMB   int     `json:"memory_mb" minimum:"16" doc:"MiB of memory, the most that a request may ask for"`
	CPUCores   float64 `json:"cpu_cores" minimum:"0.01" doc:"cores, may be fractional, the most that a request may ask for"`
	TimeoutMS  int     `json:"timeout_ms" minimum:"1" doc:"time of one exec in ms, the most that a request may ask for"`
	DiskMB     int     `json:"disk_mb" minimum:"1" doc:"MiB of written files, the most that a request may ask for"`
	DiskSizeGB int     `json:"disk_size_gb" minimum:"1" doc:"GiB of a persistent disk, the most that a request may ask for"`
	Pids       int     `json:"pids" minimum:"1" doc:"processes and threads, the most that a request may ask for"`
}

// Quota is what one namespace may have in all.
type Quota struct {
	Sandboxes       int `json:"sandboxes" minimum:"0" doc:"sandboxes that one namespace may have; 0 none"`
	ConcurrentExecs int `json:"concurrent_execs" minimum:"0" doc:"execs of one namespace, those that wait for their turn included"`
}

// Images are the images of the languages, and how images are kept.
type Images struct {
	Python                 string              `json:"python" doc:"image of the language; empty: not served"`
	Bash                   string              `json:"bash" doc:"image of the language; empty: not served"`
	Node                   string              `json:"node" doc:"image of the language; empty: not served"`
	Go                     string              `json:"go" doc:"image of the language; empty: not served"`
	Rust                   string              `json:"rust" doc:"image of the language; empty: not served"`
	StoreGB                int                 `json:"store_gb" minimum:"1" doc:"how much the image store may hold"`
	LocalRoots             []string            `json:"local_roots" doc:"folders that images may be taken from"`
	Private                map[string][]string `json:"private" doc:"namespaces that may use the host's registry credentials, by repository or PLACE/*; * is all"`
	AllowPrivateRegistries []string            `json:"allow_private_registries" doc:"registries at private addresses that may be asked"`
}

// Deps are the indexes that dependencies come from. Credentials may stand in the addresses; no sandbox sees them.
type Deps struct {
	PipIndex    string `json:"pip_index" doc:"index of Python packages; empty: what the host's pip settings say, else pip's own"`
	NpmRegistry string `json:"npm_registry" doc:"registry of Node packages; empty: what the host's npm settings say, else npm's own"`
	GoProxy     string `json:"go_proxy" doc:"list of Go module proxies; empty: what the host's Go settings say, else Go's own"`
	CargoIndex  string `json:"cargo_index" doc:"sparse index of crates; empty: what the host's cargo settings say, else cargo's own"`
}

// Compiled is how compiled programs are kept, for the same code again.
type Compiled struct {
	KeepMB int `json:"keep_mb" minimum:"0" doc:"MiB of compiled programs that are kept; 0 compiles each anew"`
}

// Output is what is kept of what programs write, for ten minutes after their end.
type Output struct {
	StreamMB int `json:"stream_mb" minimum:"0" doc:"MiB kept of each stream of an exec, for who comes back for it; a result has max_output_bytes anyway"`
	KeepMB   int `json:"keep_mb" minimum:"64" doc:"MiB of output kept on the disk in all, and at most a quarter of what is free at the start"`
}

// Disk keeps the host's disk from filling up.
type Disk struct {
	ReserveMB  int `json:"reserve_mb" minimum:"0" doc:"MiB of the data directory's file system that no sandbox may count on"`
	Overcommit int `json:"overcommit" minimum:"1" doc:"how many times the free space the disks that go with their machines may promise"`
}

// Ports are those that sandboxes may publish.
type Ports struct {
	Bind  string `json:"bind" doc:"address at which the ports of sandboxes are published"`
	Range string `json:"range" doc:"ports of this host that sandboxes may publish, FIRST-LAST"`
}

// Published are the addresses that the ports of sandboxes may have; check has judged them.
func (p Ports) Published() (bind netip.Addr, first, last int) {
	bind, _ = netip.ParseAddr(p.Bind)
	from, to, _ := strings.Cut(p.Range, "-")
	first, _ = strconv.Atoi(from)
	last, _ = strconv.Atoi(to)
	return bind, first, last
}

// Engines are the isolation technologies.
type Engines struct {
	Default   string   `json:"default" enum:"container,microvm" doc:"for requests that say nothing: container or microvm"`
	Container struct{} `json:"container"`
	MicroVM   MicroVM  `json:"microvm"`
}

// MicroVM says where the parts of the microVM engine are.
type MicroVM struct {
	VMM            string `json:"vmm" enum:"firecracker,qemu" doc:"the monitor; qemu has been broken out of where Firecracker has not"`
	Firecracker    string `json:"firecracker" doc:"path of the program; empty: looked for in PATH"`
	Jailer         string `json:"jailer" doc:"path of Firecracker's jailer; empty: looked for in PATH"`
	QEMU           string `json:"qemu" doc:"path of qemu-system-x86_64; empty: looked for in PATH"`
	Kernel         string `json:"kernel" doc:"a guest kernel with its modules: a Debian package; empty: linux-image-cloud-amd64 of Debian trixie"`
	Snapshots      bool   `json:"snapshots" doc:"microVMs go on from a snapshot of their kind where they can; false: each boots"`
	AllowEmulation bool   `json:"allow_emulation" doc:"QEMU may emulate a processor where there is no KVM: slow, and no isolation by hardware"`
}

// Pool bounds the machines that wait for a lease.
type Pool struct {
	MaxIdle     int `json:"max_idle" minimum:"0" doc:"machines kept ready, of all kinds together; 0: no pool"`
	MaxMemoryMB int `json:"max_memory_mb" minimum:"0" doc:"MiB that they may hold"`
}

// Jobs bounds the queue.
type Jobs struct {
	Concurrency             int      `json:"concurrency" minimum:"1" doc:"jobs that run at once"`
	ConcurrencyPerNamespace int      `json:"concurrency_per_namespace" minimum:"0" doc:"jobs of one namespace that run at once; 0: half of concurrency"`
	MaxQueued               int      `json:"max_queued" minimum:"1" doc:"jobs of one namespace that wait"`
	MaxQueuedInAll          int      `json:"max_queued_in_all" minimum:"1" doc:"jobs of all namespaces that wait"`
	MaxQueuedMB             int      `json:"max_queued_mb" minimum:"1" doc:"MiB of what was submitted of the jobs of one namespace that wait; eight times that of all"`
	ResultsMB               int      `json:"results_mb" minimum:"1" doc:"MiB of results that are kept, and half of that of one namespace: the oldest go before their time"`
	ResultsTTLHours         int      `json:"results_ttl_hours" minimum:"1" doc:"how long a job and its result are kept after its end"`
	CallbackAllow           []string `json:"callback_allow" doc:"blocks of addresses that callbacks may be sent to although they are not public, as 10.0.0.0/8"`
}

// Callbacks are the blocks of CallbackAllow; check has judged them.
func (j Jobs) Callbacks() (all []netip.Prefix) {
	for _, text := range j.CallbackAllow {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// Log says how the server logs.
type Log struct {
	Format string `json:"format" enum:"text,json" doc:"text or json"`
	Level  string `json:"level" enum:"debug,info,warn,error" doc:"the least that is logged: debug, info, warn or error"`
}

// Metrics says who may read /metrics.
type Metrics struct {
	Access string `json:"access" enum:"open,operator,off" doc:"who may read /metrics: open, everyone; operator, credentials of that role; off, nobody"`
}

// Audit says where the server keeps who created, ran, changed and deleted what.
type Audit struct {
	File     string `json:"file" doc:"where a line of JSON is appended for each; -: standard output; empty: nowhere. SIGHUP opens it anew"`
	Required bool   `json:"required" doc:"whether calls that can't be noted there first are refused"`
}

// Tracing says where the server tells of each call and its phases.
type Tracing struct {
	Endpoint string            `json:"endpoint" doc:"address of an OpenTelemetry collector, http or https (OTLP); empty: none"`
	Sample   float64           `json:"sample" minimum:"0" maximum:"1" doc:"which part of the calls is told of"`
	Headers  map[string]string `json:"headers" doc:"headers of the calls to the collector, credentials for example"`
}

// Default is the configuration of an operator who says nothing.
func Default() Config {
	p := policy.Default()
	return Config{
		Listen: "127.0.0.1:8080", DataDir: "/var/lib/outpost",
		RateLimit: RateLimit{PerMinute: 1000, Burst: 100},
		Policy: Policy{
			Floor:    Floor{Preset: string(p.Floor)},
			Defaults: Defaults{p.Defaults.MemoryMB, p.Defaults.CPUCores, p.Defaults.TimeoutMS, p.Defaults.DiskMB, p.Defaults.Pids},
			Maximum:  Maximum(p.Maximum), Quota: Quota(p.Quota),
		},
		Images: Images{
			Python: p.Images["python"], Bash: p.Images["bash"], Node: p.Images["node"], Go: p.Images["go"], Rust: p.Images["rust"], StoreGB: 20,
		},
		Ports: Ports{Bind: "127.0.0.1", Range: "31000-31999"}, Engines: Engines{Default: "container", MicroVM: MicroVM{VMM: "firecracker", Snapshots: true}},
		Compiled: Compiled{KeepMB: 1024}, Output: Output{StreamMB: 256, KeepMB: 4096},
		Pool: Pool{MaxIdle: 64, MaxMemoryMB: 2048}, Jobs: Jobs{Concurrency: 8, MaxQueued: 100_000, MaxQueuedInAll: 1_000_000, MaxQueuedMB: 256, ResultsTTLHours: 168, ResultsMB: 4096},
		Disk: Disk{ReserveMB: 1024, Overcommit: 10}, DrainSecs: 30, Log: Log{Format: "text", Level: "info"},
		Metrics: Metrics{Access: "operator"}, Tracing: Tracing{Sample: 1},
	}
}

// ForPolicy is the part of the configuration that requests are held against.
func (c Config) ForPolicy() policy.Policy {
	d, p := c.Policy.Defaults, policy.Default()
	p.AllowSeccompDisabled, p.Floor = c.Policy.AllowSeccompDisabled, sandbox.Preset(c.Policy.Floor.Preset)
	p.Defaults = sandbox.Limits{MemoryMB: d.MemoryMB, CPUCores: d.CPUCores, TimeoutMS: d.TimeoutMS, DiskMB: d.DiskMB, Pids: d.Pids}
	p.Maximum, p.Quota = policy.Maximum(c.Policy.Maximum), policy.Quota(c.Policy.Quota)
	p.CallbackAllow = c.Jobs.Callbacks()
	p.MicroVMDefault = c.Engines.Default == "microvm"
	p.Images = map[string]string{
		"python": c.Images.Python, "bash": c.Images.Bash, "node": c.Images.Node, "go": c.Images.Go, "rust": c.Images.Rust,
	}
	return p
}

// Drain is DrainSecs as a duration.
func (c Config) Drain() time.Duration { return time.Duration(c.DrainSecs) * time.Second }

// check judges what the types can't.
func (c Config) check(faults *sandbox.Faults) {
	host, port, err := net.SplitHostPort(c.Listen)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 || host == "" {
		faults.Add("listen", "must be HOST:PORT")
	}
	if c.DataDir == "" {
		faults.Add("data_dir", "must not be empty")
	}
	if c.RateLimit.PerMinute > 0 && c.RateLimit.Burst == 0 {
		faults.Add("rate_limit.burst", "must be at least 1 while per_minute is not 0")
	}
	d, m := c.Policy.Defaults, c.Policy.Maximum
	for name, pair := range map[string][2]float64{
		"memory_mb": {float64(d.MemoryMB), float64(m.MemoryMB)}, "cpu_cores": {d.CPUCores, m.CPUCores},
		"timeout_ms": {float64(d.TimeoutMS), float64(m.TimeoutMS)}, "disk_mb": {float64(d.DiskMB), float64(m.DiskMB)},
		"pids": {float64(d.Pids), float64(m.Pids)},
	} {
		if pair[0] > pair[1] {
			faults.Add("policy.defaults."+name, "is over policy.maximum.%s (%v)", name, pair[1])
		}
	}
	for i, text := range c.Jobs.CallbackAllow {
		if _, err := netip.ParsePrefix(text); err != nil {
			faults.Add(fmt.Sprintf("jobs.callback_allow[%d]", i), "must be a block of addresses, as 10.0.0.0/8")
		}
	}
	c.checkGPUs(faults)
	c.checkWatching(faults)
	if a, err := netip.ParseAddr(c.Ports.Bind); err != nil || a.Is4In6() {
		faults.Add("ports.bind", "must be an IP address")
	}
	first, last, pair := strings.Cut(c.Ports.Range, "-")
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if !pair || err1 != nil || err2 != nil || from == 0 || from > to {
		faults.Add("ports.range", "must be FIRST-LAST, for example 31000-31999")
	}
	if all := []string{c.Images.Python, c.Images.Bash, c.Images.Node, c.Images.Go, c.Images.Rust}; !slices.ContainsFunc(all, func(s string) bool { return s != "" }) {
		faults.Add("images", "no language has an image")
	}
	for i, root := range c.Images.LocalRoots {
		if !strings.HasPrefix(root, "/") {
			faults.Add(fmt.Sprintf("images.local_roots[%d]", i), "must be an absolute path")
		}
	}
}

// checkWatching judges where the server tells of what it does.
func (c Config) checkWatching(faults *sandbox.Faults) {
	switch f := c.Audit.File; {
	case f == "" && c.Audit.Required:
		faults.Add("audit.required", "needs audit.file")
	case f != "" && f != "-" && !strings.HasPrefix(f, "/"):
		faults.Add("audit.file", "must be an absolute path, or - for standard output")
	}
	if e := c.Tracing.Endpoint; e != "" {
		if u, err := url.Parse(e); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
			faults.Add("tracing.endpoint", "must be http://HOST:PORT or https://HOST:PORT, with a path where the collector has one; credentials go into tracing.headers")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tracing.Headers)) {
		if !headerName.MatchString(name) || strings.ContainsAny(c.Tracing.Headers[name], "\r\n\x00") {
			faults.Add(sandbox.Field("tracing.headers", name), "is no header")
		}
	}
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

var gpuKind = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,32}$`)

// checkGPUs wants device names as vendor.com/class=name, each under one kind.
func (c Config) checkGPUs(faults *sandbox.Faults) {
	under := map[string]string{}
	for _, kind := range slices.Sorted(maps.Keys(c.GPUs)) {
		at := sandbox.Field("gpus", kind)
		if !gpuKind.MatchString(kind) {
			faults.Add(at, "a kind of GPU is 1 to 32 letters, digits and _.-")
		}
		for i, device := range c.GPUs[kind] {
			switch at := fmt.Sprintf("%s[%d]", at, i); {
			case !parser.IsQualifiedName(device):
				faults.Add(at, "must be a CDI device name, for example nvidia.com/gpu=0")
			case under[device] != "":
				faults.Add(at, "is under %s already", under[device])
			}
			under[device] = kind
		}
	}
}
