package agent

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFiles is how many descriptors a frame may carry. Source: SCM_MAX_FD in include/net/scm.h.
const maxFiles = 253

// writeWithFiles writes a frame with descriptors, where the connection can carry them. Of a connection they come with the
// first frame, or with one that the agent knows to bring some.
func writeWithFiles(conn net.Conn, kind Kind, v any, files []*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return WriteFrame(conn, kind, b)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("descriptors for an agent that is not reached by a Unix socket")
	}
	var head [5]byte
	head[0] = byte(kind)
	binary.BigEndian.PutUint32(head[1:], uint32(len(b)))
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	if _, _, err := u.WriteMsgUnix(head[:], unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	_, err = u.Write(b)
	return err
}

// ReadWithFiles reads a frame and the descriptors that came with it. Nothing may have been read ahead.
func ReadWithFiles(conn net.Conn) (Kind, []byte, []*os.File, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		kind, b, err := ReadFrame(conn, nil, MaxControl)
		return kind, b, nil, err
	}
	var head [5]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := u.ReadMsgUnix(head[:], oob)
	if err != nil || n == 0 {
		return 0, nil, nil, fmt.Errorf("a frame with descriptors: %w", net.ErrClosed)
	}
	files, err := rights(oob[:oobn])
	if err != nil {
		return 0, nil, nil, err
	}
	for n < len(head) {
		m, err := u.Read(head[n:])
		if err != nil {
			return 0, nil, files, err
		}
		n += m
	}
	kind, b, err := readPayload(u, head, nil, MaxControl)
	return kind, b, files, err
}

func rights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "from the daemon"))
		}
	}
	return files, nil
}

// newMemory makes a file in memory that can be sealed. Source: memfd_create(2); MFD_NOEXEC_SEAL since Linux 6.3.
func newMemory() (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("compiled", flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("compiled", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "compiled"), nil
}

// seals: nobody changes the file any more, whoever has it open.
const seals = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Seal lets nobody change a file in memory any more.
func Seal(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("fcntl", err)
}

// sealed says whether a file in memory has so many bytes for good.
func sealed(f *os.File, size int64) bool {
	have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	st, err2 := f.Stat()
	return err == nil && err2 == nil && have&seals == seals && st.Size() == size
}
