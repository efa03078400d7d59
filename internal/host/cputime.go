package host

import (
	"time"

	"golang.org/x/sys/unix"
)

// ProcessCPU is the processor time of a process so far. Source: the clock of another process, clock_getcpuclockid(3).
func ProcessCPU(pid int) (time.Duration, error) {
	const ofScheduler = 2 // CPUCLOCK_SCHED, include/linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|ofScheduler), &t); err != nil {
		return 0, step("clock_gettime of a process", err)
	}
	return time.Duration(t.Nano()), nil
}
