package guest

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

const (
	maxUser      = 64      // bytes of a name; useradd(8) allows 32
	maxCommand   = 1 << 10 // bytes of a command line that are told
	maxCommands  = 1 << 20 // bytes of all of them, which JSON makes up to six times as long; beyond them, only names
	ticksASecond = 100     // USER_HZ, which is the same on every Linux that we run on
)

// processes tells those of the programs: not the reaper, which is ours, nor what is parked for the next exec.
func (a *Agent) processes(conn net.Conn) error {
	users := map[int]string{}
	for _, f := range database("/etc/passwd", 7) {
		if uid, err := strconv.Atoi(f[2]); err == nil && users[uid] == "" && len(f[0]) <= maxUser {
			users[uid] = f[0]
		}
	}
	booted := bootTime()
	all, left := []sandbox.Process{}, maxCommands
	for _, pid := range a.pids() {
		if p, ok := processOf(pid, users, booted, &left); ok {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(x, y sandbox.Process) int { return x.Pid - y.Pid })
	return agent.WriteJSON(conn, agent.KindOK, all)
}

// pids are the programs' in the agent's own numbers.
func (a *Agent) pids() (all []int) {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range names {
		if pid, err := strconv.Atoi(n.Name()); err == nil && !a.parked[pid] {
			all = append(all, pid)
		}
	}
	return all
}

// status reads what /proc says of a process. Source: proc_pid_status(5).
func status(pid int) map[string]string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

// inner is a process's number in the programs' namespace; 0 for one that is not in it.
func inner(fields map[string]string) int {
	numbers := strings.Fields(fields["NSpid"])
	if len(numbers) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(numbers[1])
	return n
}

func processOf(pid int, users map[int]string, booted time.Time, left *int) (p sandbox.Process, ok bool) {
	fields := status(pid)
	if p.Pid = inner(fields); p.Pid <= 1 {
		return p, false
	}
	parent, _ := strconv.Atoi(fields["PPid"])
	p.PPid = inner(status(parent))
	uid, _ := strconv.Atoi(strings.Fields(fields["Uid"] + " ")[0])
	if p.User = users[uid]; p.User == "" {
		p.User = strconv.Itoa(uid)
	}
	kb, _, _ := strings.Cut(fields["VmRSS"], " ")
	rss, _ := strconv.ParseInt(kb, 10, 64)
	p.MemoryBytes = rss << 10
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return p, false
	}
	after := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third field on, proc_pid_stat(5)
	if len(after) < 20 {
		return p, false
	}
	ticks := func(field int) int64 { n, _ := strconv.ParseInt(after[field-3], 10, 64); return n }
	p.CPUMS = (ticks(14) + ticks(15)) * 1000 / ticksASecond
	p.StartedAt = sandbox.At(booted.Add(time.Duration(ticks(22)) * time.Second / ticksASecond))
	p.Command = commandOf(pid, fields["Name"], left)
	return p, true
}

// commandOf is the command line, or the name in brackets of one that has none, or for which none of the bytes are left.
func commandOf(pid int, name string, left *int) []string {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err == nil {
		defer f.Close()
		b := make([]byte, min(maxCommand, *left))
		if n, _ := f.Read(b); n > 0 {
			*left -= n
			return strings.Split(strings.ToValidUTF8(strings.TrimRight(string(b[:n]), "\x00"), "\uFFFD"), "\x00")
		}
	}
	return []string{"[" + name + "]"}
}

// bootTime is when the kernel's ticks of processes began.
func bootTime() time.Time {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Now().Add(-time.Duration(t.Nano()))
}

// signal sends a signal to the process that programs know by a number.
func (a *Agent) signal(conn net.Conn, b []byte) error {
	var s agent.Signal
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	for _, pid := range a.pids() {
		if s.Pid <= 1 || inner(status(pid)) != s.Pid {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		defer unix.Close(fd)
		if inner(status(pid)) != s.Pid { // it was another's number by then
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.Signal(s.Signal), nil, 0); err == nil {
			return agent.WriteJSON(conn, agent.KindOK, agent.Place{})
		}
	}
	return refuse(sandbox.NotFound, "", "the sandbox has no process %d", s.Pid)
}
