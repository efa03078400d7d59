package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// A daemon that died is followed by one that asks for what it missed of the programs that stay: what was on its way to the other, which
// is no more than a socket holds, what was written while there was none, and how they ended.
const (
	keptOutput = 256 << 10 // bytes of each stream; unix(7) sends 208 KiB ahead unless told otherwise
	maxKept    = 40        // programs; the last that ended are kept. The daemon lets no more than 32 run
)

// kept is a program that stays.
type kept struct {
	files   collection
	mu      sync.Mutex
	changed *sync.Cond
	out     [2]tail
	reader  *reader // that of the daemon; nil: none
	ended   bool
	exit    *agent.Exit // nil when it has ended: nobody knows how
}

// tail is the end of a stream.
type tail struct {
	b     []byte
	total int64 // bytes of the stream before the end of b
}

func (t *tail) from() int64 { return t.total - int64(len(t.b)) }

func (t *tail) add(b []byte) {
	t.b = append(t.b, b...)
	t.total += int64(len(b))
	if len(t.b) > 2*keptOutput {
		t.trim()
	}
}

// trim drops what no daemon is to have again: one that follows is no further behind.
func (t *tail) trim() {
	if most := keptOutput + agent.MaxData; len(t.b) > most {
		t.b = t.b[:copy(t.b, t.b[len(t.b)-most:])]
	}
}

// reader is a daemon that follows, and where it is.
type reader struct{ at [2]int64 }

// keep begins to keep what a program that stays writes; nil where so many run that nothing can be kept of it.
func (a *Agent) keep(name string, files collection) *kept {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.kept) >= maxKept && !a.forgetOne() {
		return nil
	}
	k := &kept{files: files}
	k.changed = sync.NewCond(&k.mu)
	a.kept = append(a.kept, named{name, k})
	return k
}

// named is a kept program with the name by which it is asked for.
type named struct {
	name string
	*kept
}

// forgetOne drops the oldest program that has ended.
func (a *Agent) forgetOne() bool {
	for i, k := range a.kept {
		k.mu.Lock()
		ended := k.ended
		k.mu.Unlock()
		if ended {
			a.kept = append(a.kept[:i:i], a.kept[i+1:]...)
			return true
		}
	}
	return false
}

// index is that of a stream.
func index(kind agent.Kind) int {
	if kind == agent.KindStderr {
		return 1
	}
	return 0
}

// add keeps a piece of a stream. A daemon that follows is waited for.
func (k *kept) add(kind agent.Kind, b []byte) {
	if k == nil {
		return
	}
	i := index(kind)
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.reader != nil && k.out[i].total-k.reader.at[i] > keptOutput {
		k.changed.Wait()
	}
	k.out[i].add(b)
	k.changed.Broadcast()
}

// end notes how the program ended; nil: nobody knows. The first word counts.
func (k *kept) end(exit *agent.Exit) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.ended {
		k.ended, k.exit = true, exit
		for i := range k.out {
			k.out[i].trim()
			k.out[i].b = slices.Clip(slices.Clone(k.out[i].b))
		}
	}
	k.changed.Broadcast()
}

// resume tells a daemon what it missed of a program that stays, and then what comes, to its end.
func (a *Agent) resume(conn net.Conn, b []byte) error {
	var r agent.Resume
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	a.mu.Lock()
	var k *kept
	for _, one := range a.kept {
		if one.name == r.Name {
			k = one.kept
		}
	}
	a.mu.Unlock()
	if k == nil {
		return refuse(sandbox.NotFound, "", "nothing is known of the program any more")
	}
	d, err := k.attach(&r)
	if err != nil {
		return err
	}
	defer k.detach(d)
	if err := agent.WriteJSON(conn, agent.KindOK, r); err != nil {
		return err
	}
	go func() { // nothing more is sent: its end is the daemon's
		_, _ = io.Copy(io.Discard, conn)
		k.detach(d)
	}()
	return k.tell(d, conn)
}

// attach makes a daemon the one that follows, and sets r to where that begins.
func (k *kept) attach(r *agent.Resume) (*reader, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range r.At {
		if r.At[i] > k.out[i].total || r.At[i] < 0 {
			return nil, fmt.Errorf("%w: resume at %d of %d", agent.ErrFrame, r.At[i], k.out[i].total)
		}
		r.At[i] = max(r.At[i], k.out[i].from())
	}
	k.reader = &reader{r.At}
	k.changed.Broadcast()
	return k.reader, nil
}

func (k *kept) detach(d *reader) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reader == d {
		k.reader = nil
	}
	k.changed.Broadcast()
}

func (k *kept) tell(d *reader, conn net.Conn) error {
	buf := make([]byte, agent.MaxData)
	for {
		kind, n, over := k.next(d, buf)
		switch {
		case over && k.exit == nil:
			return refuse(sandbox.NotFound, "", "nothing is known of the program's end")
		case over:
			if err := agent.WriteJSON(conn, agent.KindExit, *k.exit); err != nil {
				return err
			}
			if err := k.files.send(conn); err != nil {
				return err
			}
			return agent.WriteFrame(conn, agent.KindComplete, nil)
		case n == 0:
			return nil // the daemon is gone, or another is there
		}
		if err := agent.WriteFrame(conn, kind, buf[:n]); err != nil {
			return err
		}
	}
}

// next waits for the next piece for a daemon, or the end of all; n is 0 where it follows no more.
func (k *kept) next(d *reader, buf []byte) (kind agent.Kind, n int, over bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.reader == d {
		for i, kind := range []agent.Kind{agent.KindStdout, agent.KindStderr} {
			if t := &k.out[i]; d.at[i] < t.total {
				n := copy(buf, t.b[d.at[i]-t.from():])
				d.at[i] += int64(n)
				k.changed.Broadcast()
				return kind, n, false
			}
		}
		if k.ended {
			return 0, 0, true
		}
		k.changed.Wait()
	}
	return 0, 0, false
}
