package host

import (
	"errors"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Pinned says that this process has one processor to itself.
type Pinned struct {
	CPU    int
	before unix.CPUSet
}

// Pin puts every thread of this process on the last processor that it may use, and so all that they will start. nil
// where there is only one.
func Pin() (*Pinned, error) {
	p := &Pinned{CPU: -1}
	if err := unix.SchedGetaffinity(0, &p.before); err != nil {
		return nil, step("sched_getaffinity", err)
	}
	if p.before.Count() < 2 {
		return nil, nil
	}
	for i := range len(p.before) * 64 {
		if p.before.IsSet(i) {
			p.CPU = i
		}
	}
	var one unix.CPUSet
	one.Set(p.CPU)
	for { // a thread that was not pinned yet may have started another meanwhile
		changed, err := pinThreads(one)
		if err != nil || !changed {
			return p, err
		}
	}
}

func pinThreads(to unix.CPUSet) (changed bool, err error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return false, err
		}
		var now unix.CPUSet
		err = unix.SchedGetaffinity(tid, &now)
		if err == nil && now != to {
			changed, err = true, unix.SchedSetaffinity(tid, &to)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it ended meanwhile
			return false, step("sched_setaffinity", err)
		}
	}
	return changed, nil
}

// Freely runs f on a thread that may use all processors again, for processes that f starts have those of their parent's
// thread. p may be nil.
func (p *Pinned) Freely(f func() error) error {
	if p == nil {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &p.before); err != nil {
		return step("sched_setaffinity", err)
	}
	err := f()
	var one unix.CPUSet
	one.Set(p.CPU)
	return errors.Join(err, step("sched_setaffinity", unix.SchedSetaffinity(0, &one)))
}
