package boot

import (
	"os"

	"golang.org/x/sys/unix"
)

// Unused says that nothing has a block device mounted, and forgets what was read of it. Source: open(2), O_EXCL; ioctl BLKFLSBUF, block/ioctl.c.
func Unused(device string) bool {
	if first() != nil {
		return false
	}
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	const flushBuffers = 0x1261 // _IO(0x12, 97)
	return unix.IoctlSetInt(int(f.Fd()), flushBuffers, 0) == nil
}
