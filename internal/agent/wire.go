// Package agent is the one protocol with which the daemon talks to the agent inside a machine, and its host side.
//
// One connection is one exec (or the one setup of a machine): its end is the exec's end, and the kernel's own flow
// control is its flow control (docs/decisions/0002). A frame is a kind, a length (u32, big endian) and a payload: JSON
// for control, raw bytes for data. Descriptors (a mount, control groups) ride on the first frame, those of compiled
// programs on theirs, where the connection is a Unix socket. Nothing that comes from an agent is believed: lengths are bounded before memory is taken.
package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"outpost.run/outpost/sandbox"
)

// Kind says what a frame holds.
type Kind byte

// The frames, in the order in which an exec uses them.
const (
	KindSetup     Kind = 'S' // -> Setup
	KindPark      Kind = 'P' // -> Park
	KindMount     Kind = 'M' // -> Mount
	KindUnmount   Kind = 'U' // -> Mount, the path alone
	KindPing      Kind = 'A' // -> nothing
	KindFiles     Kind = 'L' // -> FileOp, then as its verb says; answered by Complete
	KindProcesses Kind = 'T' // -> nothing, answered by OK with a list
	KindSignal    Kind = 'N' // -> Signal
	KindResume    Kind = 'E' // -> Resume, answered by OK with where it begins, then as a Run after its Begin
	KindOK        Kind = 'K' // <- Place, for all before
	KindError     Kind = 'X' // <- Failure; the connection is over
	KindWarm      Kind = 'W' // -> Warm, answered by OK
	KindRun       Kind = 'R' // -> Run
	KindFile      Kind = 'F' // -> <- FileHeader; <- before KindExit: the compiled program is in Run's memory, so many bytes
	KindData      Kind = 'D' // -> <- bytes of the file
	KindBegin     Kind = 'B' // -> all files are there; <- the program starts
	KindStdin     Kind = 'I' // -> bytes; empty: the end
	KindControl   Kind = 'C' // -> Control, between pieces of stdin
	KindStdout    Kind = '1' // <- bytes
	KindStderr    Kind = '2' // <- bytes
	KindExit      Kind = 'Q' // <- Exit
	KindComplete  Kind = 'Z' // <- all collected files were sent
)

const (
	// MaxControl bounds a JSON payload; a request with code and arguments comes with the contract's 8 MiB body.
	MaxControl = 12 << 20
	// MaxData bounds a data payload.
	MaxData = 64 << 10
	// MaxCollect bounds what one exec's collected files may be together.
	MaxCollect = 8 << 20
	// MaxProgram bounds a compiled program that is handed over.
	MaxProgram = 32 << 20
)

// Processors is the variable of an agent's environment that names those it may use, once it is no longer bound to one: 0,1,5.
const Processors = "PROCESSORS"

// DefaultPath is the PATH of programs where nobody sets one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Setup furnishes the machine; it is the first call in its life.
type Setup struct {
	Hostname   string
	ShmBytes   int64
	CPUs       int      // how many /sys shows
	ReadOnly   bool     // the root, but for Writable and WorkingDir
	Writable   []string // absolute
	WorkingDir string   // made if missing, owned by User
	User       string   // name, uid or uid:gid
	Programs   []string // interpreters or compilers that must be there
	Env        [][2]string
	Resolver   string // the address of the programs' DNS; "" for none
	Stays      bool   // the machine outlives the daemon; else it ends when the agent's standard input does
	Mounts     []Mount
}

// Mount puts a tree at a path of the programs' root. Its tree is a descriptor with the frame: for Setup, those of Mounts
// that are no link come behind the root in their order.
type Mount struct {
	Path string // absolute; made if missing
	File bool   // the tree is a file
	Link string // no tree, but a symbolic link to this; a file that is there stays
	Own  bool   // its root is handed to the user, if it is empty
}

// Park makes a confined process that waits for Run.
type Park struct {
	User    string
	Root    uint64 // Linux capabilities of the inner root, 0 for none
	Rlimits []Rlimit
	Filter  []byte // struct sock_filter[], as the kernel takes it; empty for none
	CPUs    []int
	Groups  int    // descriptors with the frame: so many cgroup.procs, then at most one cgroup.kill
	Without string // tests only: a protection to leave out, as isolation names it
}

// Rlimit is one limit of setrlimit(2), soft and hard.
type Rlimit struct {
	Resource int
	Value    uint64
}

// Place answers Setup, Park and Warm.
type Place struct {
	UID, GID int
	Pid      int  // of the parked process, in the agent's pid namespace
	Warm     bool // of Warm: the interpreter runs and waits for its program
}

// Warm says which interpreter a parked process becomes before its program is known: all of a Run but its code. The Run that
// follows must say the same.
type Warm struct {
	Programs    []string
	Interpreter []string
	FileName    string
	Args        []string
	Env         [][2]string
	Dir         string
}

// Run says what the parked process becomes.
type Run struct {
	Programs    []string // with Code: what must be there to run it
	Interpreter []string // with Code: what comes before the file's path
	Scratch     bool     // with Code: between them comes the path of a folder of the exec's own, which goes with it
	HandOver    bool     // with Scratch: what is compiled there is copied into the memory that comes with the frame, before it runs
	Compiled    bool     // with Scratch: the program was compiled earlier; its FileHeader follows the files with a descriptor
	FileName    string   // with Code: the file's name, main.py
	Code        *string
	Argv        []string // without Code
	Args        []string // after Code's file
	Env         [][2]string
	Dir         string // absolute; made if missing, owned by the program's user
	MaxOutput   int64  // of each stream; the rest is counted and dropped
	Files       int    // so many follow
	Collect     []string
	Stays       string   // it lives on when the connection ends, and the next daemon may Resume it by this name; "" it does not
	Terminal    *Control // its standard streams are a terminal of that size, and all output is stdout
	KillRest    bool     // what still runs when the first process ends is killed
}

// Control changes a program's terminal.
type Control struct {
	Cols, Rows int // 0: as they are
	Signal     int // to what is in the foreground; 0: none
}

// Warm is what could have been said of a Run before its code was known; lists of nothing are nil, so that equal ones are equal.
func (r Run) Warm() Warm {
	if len(r.Args) == 0 {
		r.Args = nil
	}
	if len(r.Env) == 0 {
		r.Env = nil
	}
	return Warm{Programs: r.Programs, Interpreter: r.Interpreter, FileName: r.FileName, Args: r.Args, Env: r.Env, Dir: r.Dir}
}

// Resume asks for a program that stays: for what comes after so many bytes of its two outputs. The answer says where that begins; later
// where bytes between were lost.
type Resume struct {
	Name string
	At   [2]int64
}

// FileHeader comes before a file's data.
type FileHeader struct {
	Path string
	Size int64
}

// Exit is how the program ended.
type Exit struct {
	Code        int
	Signal      int
	StdoutBytes int64
	StderrBytes int64
}

// Failure is a refusal; Code is one of the contract's.
type Failure struct {
	Code    sandbox.Code
	Field   string
	Message string
}

// WriteFrame writes one frame.
func WriteFrame(w io.Writer, kind Kind, payload []byte) error {
	var head [5]byte
	head[0] = byte(kind)
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload)))
	bufs := net.Buffers{head[:], payload}
	_, err := bufs.WriteTo(w)
	return err
}

// WriteJSON writes one control frame.
func WriteJSON(w io.Writer, kind Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFrame(w, kind, b)
}

// ErrFrame means that the other side doesn't speak the protocol.
var ErrFrame = errors.New("agent protocol: a frame that may not be")

// ReadFrame reads one frame into buf where it fits; limit bounds the payload.
func ReadFrame(r io.Reader, buf []byte, limit int) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	return readPayload(r, head, buf, limit)
}

func readPayload(r io.Reader, head [5]byte, buf []byte, limit int) (Kind, []byte, error) {
	n := int(binary.BigEndian.Uint32(head[1:]))
	if n > limit {
		return 0, nil, fmt.Errorf("%w: %q of %d bytes", ErrFrame, head[0], n)
	}
	if n > len(buf) {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return Kind(head[0]), buf[:n], err
}

// WriteFile writes a file's header and its size bytes.
func WriteFile(w io.Writer, path string, r io.Reader, size int64) error {
	if err := WriteJSON(w, KindFile, FileHeader{path, size}); err != nil {
		return err
	}
	return writeData(w, KindData, io.LimitReader(r, size), min(size, MaxData))
}

// ReadFile reads the data of a file whose header said size.
func ReadFile(r io.Reader, w io.Writer, size int64) error {
	for buf := make([]byte, MaxData); size > 0; {
		kind, b, err := ReadFrame(r, buf, MaxData)
		if err != nil {
			return err
		}
		if size -= int64(len(b)); kind != KindData || size < 0 {
			return fmt.Errorf("%w: %q of %d bytes in a file", ErrFrame, kind, len(b))
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// writeData writes all of r in frames of at most so many bytes.
func writeData(w io.Writer, kind Kind, r io.Reader, most int64) error {
	for buf := make([]byte, max(most, 1)); ; {
		n, err := r.Read(buf)
		if n > 0 {
			if err := WriteFrame(w, kind, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
