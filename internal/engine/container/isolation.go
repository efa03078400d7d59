package container

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/disk"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

// protections are what can be in force for a process, each with how the kernel tells; wanted says for which machines.
var protections = []struct {
	name   string
	wanted func(m *machine) bool
	holds  func(p *place, s *seen) bool
}{
	{"user_namespace", always, func(p *place, s *seen) bool { return s.apart("user") && s.belowAgent("user") }},
	{"pid_namespace", always, func(p *place, s *seen) bool { return s.apart("pid") && s.belowAgent("pid") }},
	{"mount_namespace", always, func(p *place, s *seen) bool { return s.apart("mnt") && s.belowAgent("mnt") }},
	{"network_namespace", always, func(p *place, s *seen) bool { return s.apart("net") }},
	{"ipc_namespace", always, func(p *place, s *seen) bool { return s.apart("ipc") }},
	{"uts_namespace", always, func(p *place, s *seen) bool { return s.apart("uts") }},
	{"cgroup_namespace", always, func(p *place, s *seen) bool { return s.apart("cgroup") }},
	{"host_ids", always, func(p *place, s *seen) bool {
		ids := strings.Fields(s.status["Uid"] + " " + s.status["Gid"])
		for _, id := range ids {
			if n, err := strconv.Atoi(id); err != nil || n < p.m.base || n >= p.m.base+disk.RangeSize-1 {
				return false
			}
		}
		return len(ids) == 8
	}},
	{"no_new_privs", always, func(p *place, s *seen) bool { return s.status["NoNewPrivs"] == "1" }},
	{"capabilities_dropped", always, func(p *place, s *seen) bool {
		allowed := uint64(0)
		if p.m.spec.Security.Preset == sandbox.Development {
			allowed = rootCapabilities
		}
		return s.caps("CapEff")&^allowed == 0 && s.caps("CapBnd")&^allowed == 0 && s.caps("CapAmb") == 0
	}},
	{"seccomp", func(m *machine) bool { return m.spec.Security.SeccompEnabled }, func(p *place, s *seen) bool { return s.status["Seccomp"] == "2" }},
	{"rlimits", func(m *machine) bool { return m.spec.Security.Preset != sandbox.Development }, func(p *place, s *seen) bool {
		for _, r := range p.m.rlimits() {
			if name := limitNames[r.Resource]; name != "" && s.rlimits[name] != strconv.FormatUint(r.Value, 10) {
				return false
			}
		}
		return p.m.e.broken != "rlimits"
	}},
	{"memory_limit", always, func(p *place, s *seen) bool {
		got := s.limits.MemoryBytes // the kernel rounds to pages
		return got > 0 && got <= int64(p.limits.MemoryMB)<<20
	}},
	{"cpu_limit", always, func(p *place, s *seen) bool {
		return s.limits.CPUMillis > 0 && s.limits.CPUMillis <= max(10, int(p.limits.CPUCores*1000+0.5))
	}},
	{"pids_limit", always, func(p *place, s *seen) bool { return s.limits.Pids > 0 && s.limits.Pids <= p.limits.Pids }},
	{"disk_limit", always, func(p *place, s *seen) bool {
		size := int64(s.root.Blocks) * int64(s.root.Frsize)
		return size > 0 && size <= int64(p.m.spec.Limits.DiskMB)<<20*105/100+(16<<20)
	}},
	{"read_only_root", func(m *machine) bool { return m.spec.Security.Preset == sandbox.Maximum }, func(p *place, s *seen) bool {
		return s.root.Flags&unix.ST_RDONLY != 0
	}},
	{"no_egress", func(m *machine) bool { return !hasEgress(m) }, func(p *place, s *seen) bool { return slices.Equal(s.links, []string{"lo"}) }},
	{"egress_filtered", hasEgress, func(p *place, s *seen) bool {
		slices.Sort(s.links)
		return slices.Equal(s.links, []string{engine.EgressInterface, "lo"}) && onlyWay(s.proc)
	}},
}

// limitNames are what /proc/PID/limits calls the resources that presets limit. Source: fs/proc/base.c, lnames.
var limitNames = map[int]string{unix.RLIMIT_NOFILE: "Max open files", unix.RLIMIT_FSIZE: "Max file size", unix.RLIMIT_NPROC: "Max processes"}

func always(*machine) bool { return true }

func hasEgress(m *machine) bool { return m.spec.Egress != "" && m.spec.Egress != "none" }

// onlyWay: everything but the loopback goes by the link that ends in the daemon.
func onlyWay(proc string) bool {
	four, err := os.ReadFile(proc + "/net/route")
	if err != nil {
		return false
	}
	way := false
	for i, line := range strings.Split(strings.TrimSpace(string(four)), "\n") {
		f := strings.Fields(line)
		if i == 0 || len(f) < 2 { // the heading
			continue
		}
		if f[0] != engine.EgressInterface {
			return false
		}
		way = way || f[1] == "00000000"
	}
	six, err := os.ReadFile(proc + "/net/ipv6_route")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false
	}
	for line := range strings.Lines(string(six)) {
		f := strings.Fields(line)
		if last := f[len(f)-1]; last != engine.EgressInterface && last != "lo" {
			return false
		}
	}
	return way
}

// seen is what the kernel says of a place's parked process.
type seen struct {
	proc, agent string // /proc/PID
	status      map[string]string
	rlimits     map[string]string // hard limits, by their names in /proc/PID/limits
	limits      host.CgroupLimits
	root        unix.Statfs_t
	links       []string

	namespaces map[string]string // by their paths below /proc
}

// Isolation implements engine.Exec: what was read when the machine was last asked, since its first process only waits.
func (p *place) Isolation() sandbox.Isolation {
	if p.known == nil {
		i := p.readIsolation()
		p.known = &i
	}
	i := *p.known
	i.Requested, i.Effective, i.Missing = slices.Clone(i.Requested), slices.Clone(i.Effective), slices.Clone(i.Missing)
	return i
}

func (p *place) readIsolation() sandbox.Isolation {
	i := sandbox.Isolation{Engine: "container", Requested: []string{}, Effective: []string{}, Missing: []string{}}
	s := p.look()
	for _, x := range protections {
		if !x.wanted(p.m) {
			continue
		}
		i.Requested = append(i.Requested, x.name)
		if s != nil && x.holds(p, s) {
			i.Effective = append(i.Effective, x.name)
		} else {
			i.Missing = append(i.Missing, x.name)
		}
	}
	return i
}

func (p *place) look() *seen {
	if p.pid == 0 {
		return nil
	}
	s := &seen{proc: fmt.Sprintf("/proc/%d", p.pid), agent: fmt.Sprintf("/proc/%d", p.m.process.Pid), status: map[string]string{}, rlimits: map[string]string{}, limits: p.group.Limits(), namespaces: map[string]string{}}
	status, err := os.ReadFile(s.proc + "/status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		s.status[key] = strings.TrimSpace(value)
	}
	limits, _ := os.ReadFile(s.proc + "/limits")
	for line := range strings.Lines(string(limits)) {
		for _, name := range limitNames {
			if rest, ok := strings.CutPrefix(line, name); ok {
				s.rlimits[name] = strings.Fields(rest)[1]
			}
		}
	}
	_ = unix.Statfs(s.proc+"/root/", &s.root)
	dev, _ := os.ReadFile(s.proc + "/net/dev")
	for line := range strings.Lines(string(dev)) {
		if name, _, is := strings.Cut(line, ":"); is {
			s.links = append(s.links, strings.TrimSpace(name))
		}
	}
	return s
}

func (s *seen) caps(set string) uint64 {
	n, err := strconv.ParseUint(s.status[set], 16, 64)
	if err != nil {
		return ^uint64(0)
	}
	return n
}

// apart: the namespace is not the daemon's.
func (s *seen) apart(ns string) bool { return differ(own()[ns], s.namespace(s.proc, ns)) }

// belowAgent: nor the agent's.
func (s *seen) belowAgent(ns string) bool {
	return differ(s.namespace(s.agent, ns), s.namespace(s.proc, ns))
}

// differ: both are known, and not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

// namespace names one of a process's, "" where it can't be read.
func (s *seen) namespace(proc, ns string) string {
	path := proc + "/ns/" + ns
	name, ok := s.namespaces[path]
	if !ok {
		name, _ = os.Readlink(path)
		s.namespaces[path] = name
	}
	return name
}

// own are the daemon's namespaces, which it never leaves.
var own = sync.OnceValue(func() map[string]string {
	all := map[string]string{}
	for _, ns := range []string{"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"} {
		all[ns], _ = os.Readlink("/proc/self/ns/" + ns)
	}
	return all
})
