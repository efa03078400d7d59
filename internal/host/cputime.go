package host

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ProcessCPU is the processor time of a process so far: its own, to the nanosecond, and that of all its descendants that
// were waited for, in steps of 10 ms. Source: the clock of another process, clock_getcpuclockid(3); proc_pid_stat(5).
func ProcessCPU(pid int) (own, children time.Duration, err error) {
	const ofScheduler = 2 // CPUCLOCK_SCHED, include/linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|ofScheduler), &t); err != nil {
		return 0, 0, step("clock_gettime of a process", err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	const cutime, cstime, tick = 16, 17, 10 * time.Millisecond     // USER_HZ is 100 on every architecture that Go has
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third field on: the second may hold spaces
	if len(f) <= cstime-3 {
		return 0, 0, fmt.Errorf("/proc/%d/stat ends early", pid)
	}
	for _, s := range f[cutime-3 : cstime-2] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		children += time.Duration(n) * tick
	}
	return time.Duration(t.Nano()), children, nil
}
