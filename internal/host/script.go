package host

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Script is a list of system calls that a forked child runs, and nothing else: between fork and exec a child of a
// program with threads may neither allocate nor take a lock, so all is laid out beforehand by ordinary code. It lies in
// memory that parent and child share, so that the parent can write the end of a script whose child is already waiting
// in the middle of it, and reads there which call failed.
type Script struct {
	mem   []byte
	names []string
	data  uintptr // offset of the next free byte
}

const (
	scriptOps  = 512
	opSize     = unsafe.Sizeof(op{})
	dataOffset = unsafe.Sizeof(header{}) + scriptOps*opSize
)

type header struct {
	failed    uintptr // 1 + index of the call that failed and had to succeed
	errno     uintptr
	execErrno uintptr // of the execve that came closest to success
	ended     uintptr // 1: the child came to its last call, so no execve succeeded
}

type op struct {
	nr   uintptr
	args [6]uintptr
	mode uintptr
}

const (
	must    = iota // fails the script
	may            // its failure doesn't matter
	must1          // has to answer 1: a byte read
	exec           // on failure the next is tried
	forever        // is called again and again
)

// NewScript lays out a script with room for size bytes of strings and arguments; untouched room costs no memory.
func NewScript(size int) (*Script, error) {
	mem, err := unix.Mmap(-1, 0, int(dataOffset)+size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, step("map a script", err)
	}
	return &Script{mem: mem, data: dataOffset}, nil
}

// Close frees the memory; the child must have started its program or be gone.
func (s *Script) Close() { _ = unix.Munmap(s.mem) }

func (s *Script) header() *header { return (*header)(unsafe.Pointer(&s.mem[0])) }

func (s *Script) at(i int) *op {
	return (*op)(unsafe.Pointer(&s.mem[unsafe.Sizeof(header{})+uintptr(i)*opSize]))
}

func (s *Script) add(mode uintptr, name string, nr uintptr, args ...uintptr) {
	if len(s.names) == scriptOps {
		panic("a script of over 512 calls")
	}
	o := s.at(len(s.names))
	*o = op{nr: nr, mode: mode}
	copy(o.args[:], args)
	s.names = append(s.names, name)
}

// Must adds a call whose failure ends the script.
func (s *Script) Must(name string, nr uintptr, args ...uintptr) { s.add(must, name, nr, args...) }

// May adds a call that may fail.
func (s *Script) May(name string, nr uintptr, args ...uintptr) { s.add(may, name, nr, args...) }

// Wait adds the reading of one byte; the end of file there ends the script.
func (s *Script) Wait(name string, fd int) {
	s.add(must1, name, unix.SYS_READ, uintptr(fd), s.Bytes(make([]byte, 8)), 1)
}

// Exec adds a program to try; paths that can't be started are passed over, then the child exits with 127.
func (s *Script) Exec(path string, argv, envp uintptr) {
	s.add(exec, "execve", unix.SYS_EXECVE, s.String(path), argv, envp)
}

// Exit ends the child.
func (s *Script) Exit(code int) { s.add(forever, "exit", unix.SYS_EXIT_GROUP, uintptr(code)) }

// Reopen takes the last call off, so that a script whose child waits before it can be given another end.
func (s *Script) Reopen() { s.names = s.names[:len(s.names)-1] }

// Sleep lets the child sleep for good.
func (s *Script) Sleep() { s.add(forever, "sleep", unix.SYS_PPOLL, 0, 0, 0, 0) }

// Room says how many bytes are left for strings and arguments.
func (s *Script) Room() int { return len(s.mem) - int(s.data) }

// Bytes puts data where the child sees it and gives its address.
func (s *Script) Bytes(b []byte) uintptr {
	if len(b) > s.Room()-8 {
		panic("a script's data is full") // callers ask Room before they add what others chose
	}
	copy(s.mem[s.data:], b)
	addr := uintptr(unsafe.Pointer(&s.mem[0])) + s.data
	s.data = (s.data + uintptr(len(b)) + 7) &^ 7
	return addr
}

// String puts a NUL-terminated string.
func (s *Script) String(v string) uintptr { return s.Bytes(append([]byte(v), 0)) }

// Words puts machine words: structures and arrays of pointers.
func (s *Script) Words(w ...uintptr) uintptr {
	if len(w) == 0 {
		return s.Bytes(make([]byte, 8))
	}
	return s.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), len(w)*int(unsafe.Sizeof(w[0]))))
}

// Strings puts an argument or environment vector.
func (s *Script) Strings(list []string) uintptr {
	w := make([]uintptr, len(list)+1)
	for i, v := range list {
		w[i] = s.String(v)
	}
	return s.Words(w...)
}

// Failed says which call ended the script, nil for none.
func (s *Script) Failed() error {
	h := s.header()
	if h.failed == 0 {
		return nil
	}
	return step(s.names[h.failed-1], syscall.Errno(h.errno))
}

// ExecFailed is why no program could be started, nil if one was or none was tried.
func (s *Script) ExecFailed() error {
	if h := s.header(); h.ended != 0 && h.execErrno != 0 {
		return syscall.Errno(h.execErrno)
	}
	return nil
}

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// Fork starts a child that runs the script and gives its pid. The child has the memory of the caller, copied on write:
// it is for small programs such as the agent.
func (s *Script) Fork(flags uintptr) (int, error) {
	for i := range s.names {
		if s.at(i).mode == forever {
			pid, errno := fork(flags|uintptr(unix.SIGCHLD), unsafe.Pointer(&s.mem[0]))
			if errno != 0 {
				return 0, step("clone", errno)
			}
			return pid, nil
		}
	}
	return 0, errors.New("a script without an end")
}

//go:noinline
//go:norace
//go:nocheckptr
func fork(flags uintptr, mem unsafe.Pointer) (int, syscall.Errno) {
	runtime.LockOSThread()
	syscall.ForkLock.Lock()
	beforeFork()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		afterForkInChild()
		run(mem)
	}
	afterFork()
	syscall.ForkLock.Unlock()
	runtime.UnlockOSThread()
	return int(pid), errno
}

// run is the child. It may not call anything that may grow the stack or take a lock.
//
//go:nosplit
//go:norace
//go:nocheckptr
func run(mem unsafe.Pointer) {
	h := (*header)(mem)
	for i := uintptr(0); ; i++ {
		o := (*op)(unsafe.Add(mem, unsafe.Sizeof(header{})+i*opSize))
		if o.mode == forever {
			h.ended = 1
		}
		r, _, errno := syscall.RawSyscall6(o.nr, o.args[0], o.args[1], o.args[2], o.args[3], o.args[4], o.args[5])
		switch o.mode {
		case must:
			if errno == 0 {
				continue
			}
		case may:
			continue
		case must1:
			if errno == unix.EINTR {
				i--
				continue
			}
			if errno == 0 && r == 1 {
				continue
			}
		case exec:
			if h.execErrno == 0 || h.execErrno == uintptr(unix.ENOENT) || h.execErrno == uintptr(unix.ENOTDIR) {
				h.execErrno = uintptr(errno)
			}
			continue
		case forever:
			i--
			continue
		}
		h.failed = i + 1
		h.errno = uintptr(errno)
		for {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 255, 0, 0)
		}
	}
}
