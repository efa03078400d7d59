package container

import (
	"context"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/cell/filter"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

// place is one exec's: its control group, and a process parked in it.
type place struct {
	m      *machine
	id     string
	user   string
	limits sandbox.Limits
	group  host.Cgroup
	conn   *agent.Conn
	pid    int // of the parked process, on the host
	oom    *os.File
	close  sync.Once
	stays  atomic.Bool // its program does, and its end was not seen here

	known *sandbox.Isolation // as it was last read; nil: not yet

	warm    *agent.Warm   // nil: the process is parked
	spoilt  bool          // it ended while it was being warmed
	warming chan struct{} // closed when warm and spoilt say what is; nil: that was never asked
}

// park makes the group and lets the agent put a process in it.
func (m *machine) park(ctx context.Context, x engine.ExecSpec) (*place, error) {
	ctx, cancel := context.WithTimeout(ctx, parkLimit)
	defer cancel()
	p := &place{m: m, id: x.ID, user: x.User, limits: x.Limits, group: m.programs().Child(x.ID)}
	var undo host.Undo
	defer undo.Run()
	undo.Add(func() { m.e.kernel.Undo(func() { _ = removeGroup(context.WithoutCancel(ctx), p.group) }) })
	limits := m.e.limits(x.Limits)
	limits.OOMGroup = true
	if err := m.e.kernel.MakeCgroup(p.group, false, limits); err != nil {
		return nil, err
	}
	var err error
	if p.oom, err = p.group.OnOOM(); err != nil {
		return nil, err
	}
	if p.oom != nil {
		undo.Add(func() { p.oom.Close() })
	}
	join, err := p.group.Join()
	if err != nil {
		return nil, err
	}
	groups := len(join)
	if kill := p.group.KillFile(); kill != nil {
		join = append(join, kill)
	}
	defer func() {
		for _, f := range join {
			f.Close()
		}
	}()
	if p.conn, err = m.dial(ctx); err != nil {
		return nil, err
	}
	undo.Add(func() { p.conn.Close() })
	defer context.AfterFunc(ctx, func() { p.conn.Close() })()
	request := agent.Park{User: x.User, Rlimits: m.rlimits(), CPUs: processors(x.Limits), Groups: groups, Without: m.e.broken}
	if m.spec.Security.Preset == sandbox.Development {
		request.Root = rootCapabilities
	}
	if m.spec.Security.SeccompEnabled && m.e.broken != "seccomp" {
		if request.Filter, err = filter.For(m.spec.Security.Preset); err != nil {
			return nil, err
		}
	}
	if err := m.e.kernel.Enter("park"); err != nil {
		return nil, err
	}
	if _, err := p.conn.Park(request, join...); err != nil {
		return nil, err
	}
	if pids := p.group.Members(); len(pids) == 1 {
		p.pid = pids[0]
	}
	if p.oom != nil {
		go p.watchOOM()
	}
	undo.Keep()
	return p, nil
}

// rootCapabilities are what root of preset development has in its own user namespace: what package managers need.
const rootCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_KILL |
	1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_SETFCAP

// rlimits are the preset's, see the contract's table.
func (m *machine) rlimits() []agent.Rlimit {
	all := []agent.Rlimit{{Resource: unix.RLIMIT_CORE}}
	switch m.spec.Security.Preset {
	case sandbox.Standard:
		all = append(all, agent.Rlimit{Resource: unix.RLIMIT_NOFILE, Value: 4096})
	case sandbox.Maximum:
		all = append(all, agent.Rlimit{Resource: unix.RLIMIT_NOFILE, Value: 1024}, agent.Rlimit{Resource: unix.RLIMIT_FSIZE, Value: 1 << 30},
			agent.Rlimit{Resource: unix.RLIMIT_NPROC, Value: 100})
	}
	if m.e.broken == "rlimits" {
		return nil
	}
	return all
}

// cores is how many processors a machine sees.
func cores(l sandbox.Limits) int { return max(1, int(math.Ceil(l.CPUCores))) }

var nextProcessor atomic.Uint32

// allowed are the processors that the daemon may use; nil where that can't be told.
func allowed() (mine []int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	for n := range 1024 {
		if set.IsSet(n) {
			mine = append(mine, n)
		}
	}
	return mine
}

// processors chooses as many of the host's processors as the limit rounded up, another start each time. All of them: nil.
func processors(l sandbox.Limits) []int {
	mine := allowed()
	want := cores(l)
	if want >= len(mine) || runtime.NumCPU() == 1 {
		return mine
	}
	start := int(nextProcessor.Add(1))
	chosen := make([]int, want)
	for i := range chosen {
		chosen[i] = mine[(start+i)%len(mine)]
	}
	return chosen
}

// watchOOM does on v1 what memory.oom.group does on v2: a victim takes the whole exec along.
func (p *place) watchOOM() {
	buf := make([]byte, 8)
	for {
		if _, err := p.oom.Read(buf); err != nil {
			return
		}
		for range 50 { // the event comes before the kill
			if p.group.Usage().OOMKills > 0 {
				_ = p.group.Kill()
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// Run implements engine.Exec.
func (p *place) Run(run agent.Run, feed agent.Feed) (agent.Exit, []agent.File, error) {
	run.KillRest = !p.m.spec.Stateful
	if run.Stays != "" {
		p.stays.Store(true)
	}
	if told := feed.Exited; told != nil {
		feed.Exited = func(e agent.Exit) {
			p.stays.Store(false)
			told(e)
		}
	}
	return p.conn.Run(run, feed)
}

// Control implements engine.Exec.
func (p *place) Control(x agent.Control) error { return p.conn.Control(x) }

// Kill implements engine.Exec.
func (p *place) Kill() error { return p.group.Kill() }

// Usage implements engine.Exec.
func (p *place) Usage() (sandbox.Usage, bool) {
	u := p.group.Usage()
	return sandbox.Usage{CPUMS: float64(u.CPU.Microseconds()) / 1000, MemoryPeakBytes: u.MemoryPeakBytes, PidsPeak: u.PidsPeak}, u.OOMKills > 0
}

// Close implements engine.Exec.
func (p *place) Close() {
	p.close.Do(func() {
		p.conn.Close()
		if p.oom != nil {
			p.oom.Close()
		}
		if p.m.spec.Stateful {
			p.m.reclaim(p.id, p.group, p.stays.Load())
		} else {
			_ = p.group.Kill()
		}
	})
}
