package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Line is where a guest is reached from its host.
type Line interface {
	// Accept waits for the host's next connection.
	Accept() (io.ReadWriteCloser, error)
}

// ListenVsock listens at a port of the machine's virtual socket. Source: vsock(7).
func ListenVsock(port uint32) (Line, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_VSOCK)", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind(AF_VSOCK)", err)
	}
	if err := unix.Listen(fd, 4); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen(AF_VSOCK)", err)
	}
	return vsock{os.NewFile(uintptr(fd), "vsock")}, nil
}

type vsock struct{ f *os.File }

func (v vsock) Accept() (io.ReadWriteCloser, error) {
	raw, err := v.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		fd, failed := -1, error(nil)
		if err := raw.Read(func(l uintptr) bool {
			fd, _, failed = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return failed != unix.EAGAIN
		}); err != nil {
			return nil, err
		}
		switch failed {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return nil, os.NewSyscallError("accept4", failed)
		}
		var peer unix.Sockaddr
		if peer, failed = unix.Getpeername(fd); failed == nil {
			if vm, is := peer.(*unix.SockaddrVM); is && vm.CID == unix.VMADDR_CID_HOST {
				return os.NewFile(uintptr(fd), "vsock connection"), nil
			}
		}
		unix.Close(fd) // a program of the machine itself, by the loopback transport
	}
}

// OpenSerial finds the virtio-serial port of a name. Its connections follow each other.
func OpenSerial(name string) (Line, error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			if b, _ := os.ReadFile(path); strings.TrimSpace(string(b)) == name {
				return serial{"/dev/" + filepath.Base(filepath.Dir(path))}, nil
			}
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no virtio-serial port %s appeared", name)
		}
	}
}

type serial struct{ path string }

// Accept waits until the host has its end open: until then a read says that there is nothing more. Source: port_fops_read in
// drivers/char/virtio_console.c.
func (s serial) Accept() (io.ReadWriteCloser, error) {
	for {
		f, err := os.OpenFile(s.path, os.O_RDWR, 0)
		if errors.Is(err, unix.EBUSY) { // the former connection is being closed
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err != nil {
			return nil, err
		}
		if ready(f) {
			return f, nil
		}
		f.Close()
		time.Sleep(2 * time.Millisecond)
	}
}

func ready(f *os.File) bool {
	polled := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN | unix.POLLOUT}}
	n, err := unix.Poll(polled, 0)
	return err == nil && n == 1 && polled[0].Revents&unix.POLLHUP == 0
}
