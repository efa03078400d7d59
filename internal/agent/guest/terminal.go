package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// terminal is a pseudo-terminal of the programs' own /dev/pts. Source: pts(4), ioctl_tty(2).
type terminal struct {
	master *os.File
	path   string // of the other side, as programs see it
}

// openTerminal makes one that belongs to a user.
func openTerminal(who user, size agent.Control) (*terminal, error) {
	t := &terminal{}
	err := as(who, func() (err error) {
		t.master, err = open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	})
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EMFILE) { // devpts' max, or the kernel's own. Source: devpts_new_index
		return nil, refuse(sandbox.Conflict, "", "the programs in the sandbox hold all of its terminals; end some of them first")
	}
	if err != nil {
		return nil, err
	}
	err = t.control(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
		t.path = fmt.Sprintf("/dev/pts/%d", n)
		return err
	})
	if err == nil {
		err = t.apply(size)
	}
	if err != nil {
		t.master.Close()
		return nil, err
	}
	return t, nil
}

func (t *terminal) control(f func(fd int) error) error {
	raw, err := t.master.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = f(int(fd)) })
	return errors.Join(err, result)
}

// apply changes the size, and signals what is in the foreground.
func (t *terminal) apply(x agent.Control) error {
	return t.control(func(fd int) error {
		if x.Cols > 0 && x.Rows > 0 {
			if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(x.Cols), Row: uint16(x.Rows)}); err != nil {
				return err
			}
		}
		if x.Signal == 0 {
			return nil
		}
		group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		if err != nil || group <= 1 {
			return err
		}
		return unix.Kill(-group, unix.Signal(x.Signal))
	})
}

// input is the master once more, for who writes to it.
func (t *terminal) input() (f *os.File) {
	_ = t.control(func(fd int) error {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			f = os.NewFile(uintptr(n), "terminal")
		}
		return err
	})
	return f
}

// hangUp ends an exec whose client is gone. A terminal's session hears of it by SIGHUP, and what it was told to leave running
// stays: only the first process goes in any case.
func (x *execution) hangUp() {
	if x.terminal == nil {
		x.kill()
		return
	}
	x.finish()
	_ = x.terminal.apply(agent.Control{Signal: int(unix.SIGHUP)})
	x.terminal.master.Close()
	time.AfterFunc(time.Second, x.process.Kill)
}

// controlled reads a Control for the exec's terminal; one without a terminal ignores it.
func (x *execution) controlled(b []byte) error {
	var c agent.Control
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	if x.terminal != nil {
		_ = x.terminal.apply(c) // there may be nobody in the foreground
	}
	return nil
}
