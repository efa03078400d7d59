package guest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
)

// The C library and Go's syscall package change the ids of all threads; here only the calling one's file ids are meant.
// Source: setfsuid(2), which also says that it can't tell failure but by being called again.

func setThreadIDs(uid, gid int) error {
	set := func(nr uintptr, id int) error {
		unix.RawSyscall(nr, uintptr(id), 0, 0)
		if now, _, _ := unix.RawSyscall(nr, ^uintptr(0), 0, 0); int(now) != id {
			return fmt.Errorf("file id %d could not be taken", id)
		}
		return nil
	}
	if err := set(unix.SYS_SETFSGID, gid); err != nil {
		return err
	}
	if err := set(unix.SYS_SETFSUID, uid); err != nil {
		return err
	}
	if uid == 0 {
		return nil
	}
	return dropFileCapabilities()
}

// dropFileCapabilities: the agent is no uid 0, so changing its file uid leaves it the rights of a superuser on files.
func dropFileCapabilities() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&none[0])), 0); errno != 0 {
		return fmt.Errorf("capset: %w", errno)
	}
	return nil
}

func setThreadGroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0); errno != 0 {
		return fmt.Errorf("setgroups: %w", errno)
	}
	return nil
}

// spreadThreads lets the agent's threads run on every processor that the daemon may use. While a machine is made they are bound to one,
// where they wake each other sooner and have no pages to be flushed elsewhere.
func spreadThreads() {
	var all unix.CPUSet
	for _, s := range strings.Split(os.Getenv(agent.Processors), ",") {
		if n, err := strconv.Atoi(s); err == nil {
			all.Set(n)
		}
	}
	if all.Count() == 0 {
		return
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetaffinity(id, &all)
		}
	}
}
