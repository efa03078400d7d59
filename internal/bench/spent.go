package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"outpost.run/outpost/internal/host"
)

// meter reads what a server and all its machines use of this host.
type meter struct {
	pid   int
	group host.Cgroup // of the installation: what machines that are gone have used is counted there still
}

// newMeter is for the server whose data directory is dataDir.
func newMeter(dataDir string, pid int) (*meter, error) {
	id, err := os.ReadFile(filepath.Join(dataDir, "installation"))
	if err != nil {
		return nil, err
	}
	groups, err := host.FindHierarchies()
	if err != nil {
		return nil, err
	}
	return &meter{pid, groups.Group("outpost-" + strings.TrimSpace(string(id)))}, nil
}

// processor is processor time.
type processor struct {
	server   time.Duration // the process itself
	machines time.Duration // in the installation's control groups, what starts machines included
}

func (m *meter) processor() (p processor, err error) {
	p.server, err = host.ProcessCPU(m.pid)
	p.machines = m.group.Usage().CPU
	return p, err
}

// sum is all that was used between two readings.
func (p processor) sum(before processor) time.Duration {
	return p.server - before.server + p.machines - before.machines
}

// plus adds what was used between two readings, part by part.
func (p processor) plus(after, before processor) processor {
	return processor{p.server + after.server - before.server, p.machines + after.machines - before.machines}
}

// kernelThreads is the processor time of all kernel threads of the host so far, in steps of 10 ms for each: what the
// kernel does later, in nobody's name. Source: proc_pid_stat(5); they are the children of kthreadd, pid 2.
func kernelThreads() (sum time.Duration, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from the third field on
		if len(f) > 12 && f[1] == "2" {
			user, _ := strconv.ParseInt(f[11], 10, 64)
			system, _ := strconv.ParseInt(f[12], 10, 64)
			sum += time.Duration(user+system) * 10 * time.Millisecond
		}
	}
	return sum, err
}

// A server is at rest when it and its machines use less than restShare of a processor over restFor, twice in a row.
const (
	restFor   = 40 * time.Millisecond
	restShare = 0.05
	restLimit = 30 * time.Second
)

// rest waits until nothing of what was done before goes on: machines that are removed, a pool that fills.
func (m *meter) rest(ctx context.Context) error {
	last, err := m.processor()
	for quiet, end := 0, time.Now().Add(restLimit); quiet < 2 && err == nil; {
		began := time.Now()
		if !until(ctx, began.Add(restFor)) {
			return context.Cause(ctx)
		}
		now, wrong := m.processor()
		quiet, err = quiet+1, wrong
		if float64(now.sum(last)) > restShare*float64(time.Since(began)) {
			quiet = 0
		}
		if last = now; began.After(end) {
			return fmt.Errorf("the server does not come to rest within %v: something else uses it", restLimit)
		}
	}
	return err
}

// memory is what is used, in bytes.
type memory struct {
	machines host.CgroupMemory
	server   int64 // its share of what it has mapped
	kernel   int64 // the whole host's, what can't be reclaimed
	free     int64 // MemAvailable
}

func (m *meter) memory() (memory, error) {
	own, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", m.pid))
	if err != nil {
		return memory{}, err
	}
	all, err := fields("/proc/meminfo")
	return memory{
		machines: m.group.Memory(), server: own["Pss"], free: all["MemAvailable"],
		kernel: all["SUnreclaim"] + all["KernelStack"] + all["PageTables"] + all["Percpu"],
	}, err
}

// fields reads lines of "Name: N kB" and gives bytes.
func fields(path string) (map[string]int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all[strings.TrimSuffix(f[0], ":")] = n << 10
		}
	}
	return all, nil
}
