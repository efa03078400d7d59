package container

import (
	"context"
	"io"
	"reflect"
	"time"

	"outpost.run/outpost/internal/agent"
)

// Warm implements engine.Machine.
func (m *machine) Warm(ctx context.Context, w agent.Warm) error {
	m.mu.Lock()
	p := m.first
	if p == nil || p.warming != nil {
		m.mu.Unlock()
		return nil
	}
	p.warming = make(chan struct{})
	m.mu.Unlock()
	defer close(p.warming)
	stop := context.AfterFunc(ctx, func() { // the agent says so when it is gone, and the fifo too
		_ = p.Kill()
		_ = p.conn.SetDeadline(time.Now().Add(time.Second))
	})
	if err := m.e.kernel.Enter("warm"); err != nil {
		p.spoilt = true
		stop()
		return err
	}
	warm, err := p.conn.Warm(w)
	if warm {
		p.warm = &w
	}
	p.spoilt = !stop() || err != nil
	return err
}

// ready waits until the process is what Warm makes it, and says whether it may become the exec's program.
func (p *place) ready(ctx context.Context, want *agent.Warm) bool {
	if p.warming == nil {
		return true
	}
	select {
	case <-p.warming:
	case <-ctx.Done():
		return false
	}
	return !p.spoilt && (p.warm == nil || want != nil && reflect.DeepEqual(*p.warm, *want))
}

// discard ends the process, and waits for a moment until it holds nothing of the machine's memory and processes any more, nor
// a name among its files: the agent hangs up when it has seen to that.
func (p *place) discard(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	if half, ok := p.conn.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = p.conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, p.conn.Conn)
	}
	stop()
	p.Close()
	for wait := 100 * time.Microsecond; wait < 20*time.Millisecond && len(p.group.Members()) > 0; wait *= 2 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Warm implements engine.Exec.
func (p *place) Warm() bool { return p.warm != nil }

// agentBytes is about what an agent holds: it was started in the launcher's group, which goes on counting that.
const agentBytes = 3 << 20

// Memory implements engine.Machine.
func (m *machine) Memory() int64 { return m.group.Memory().All + agentBytes }
