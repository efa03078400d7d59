package image

import (
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/sandbox"
)

// room is the one account of what images under way may take, of the store's disk or of memory: half of what is free, all
// together.
type room struct {
	free func() (int64, error)
	full func() error

	mu       sync.Mutex
	promised int64 // bytes, those that are written already included
	written  int64 // of them: what is free has them no more
}

// share is what one image or layer has of the room; nil has no end.
type share struct {
	room                 *room
	want, granted, wrote int64
}

// Until it is done a layer's content lies on the disk three times: in the spool, in the EROFS writer's own, and in the layer.
const (
	ofContent = 3
	ofLinks   = 2 // what hard links double is not in the spool
	grain     = 8 << 20
)

// What a tree holds in memory, the EROFS writer's part included: a KiB an entry beside its names and attributes (measured, a
// million entries). So much of it each tree may hold freely, so that small images never wait for large ones; over that, all
// trees together.
const (
	perEntry = 1 << 10
	freely   = 32 << 20
	ofTrees  = 1 << 30
)

func newDiskRoom(dir string) *room {
	return &room{free: freeIn(dir), full: func() error { return noRoom(nil) }}
}

func newMemoryRoom() *room {
	return &room{free: func() (int64, error) { return 2 * ofTrees, nil }, full: func() error {
		e := sandbox.Errorf(sandbox.Capacity, nil, "images of too many files are being read at once: try again later")
		e.RetryAfterSecs = 30
		return e
	}}
}

func freeIn(dir string) func() (int64, error) {
	return func() (int64, error) {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		return int64(st.Bavail) * st.Bsize, err
	}
}

func (r *room) share() *share { return &share{room: r} }

// add takes room for want more bytes, of which wrote are about to be written. Error: Capacity.
func (s *share) add(want, wrote int64) error {
	if s == nil {
		return nil
	}
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	s.want += want
	if s.want > s.granted {
		free, err := r.free()
		if err != nil {
			return err
		}
		lacks := s.want - s.granted
		more := max(lacks, grain) // or the disk would be asked for every few bytes
		if 2*(r.promised+more) > free+r.written {
			more = lacks
		}
		if 2*(r.promised+more) > free+r.written {
			return r.full()
		}
		r.promised += more
		s.granted += more
	}
	s.wrote += wrote
	r.written += wrote
	return nil
}

// end gives all of it back.
func (s *share) end() {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.promised -= s.granted
	s.room.written -= s.wrote
	s.want, s.granted, s.wrote = 0, 0, 0
}

func noRoom(cause error) error {
	return sandbox.Errorf(sandbox.Capacity, cause, "the image store is full: an operator must make room for it (outpost image prune)")
}

// metered writes a layer's content as far as there is room.
type metered struct {
	io.Writer
	share *share
}

func (m metered) Write(b []byte) (int, error) {
	if err := m.share.add(ofContent*int64(len(b)), int64(len(b))); err != nil {
		return 0, err
	}
	return m.Writer.Write(b)
}
