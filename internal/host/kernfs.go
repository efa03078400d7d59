package host

import (
	"golang.org/x/sys/unix"
)

// Files of control groups are written and read with bare calls: os.File would enter each into the process's epoll set and
// take it out again, which costs more than the write.

func writeFile(path, text string) error {
	fd, err := openKernfs(path, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		if _, err := unix.Write(fd, []byte(text)); err != unix.EINTR {
			return err
		}
	}
}

// readFile gives at most 4 KiB, unless there is more: the kernel's single values are one read.
func readFile(path string) (string, error) {
	fd, err := openKernfs(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n == 0 {
			return string(all), nil
		}
		all = append(all, buf[:n]...)
	}
}

func openKernfs(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
