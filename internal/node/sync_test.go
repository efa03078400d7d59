package node_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// restarted is the next daemon, with an engine of the test's, of an installation that has these sandboxes.
func restarted(t *testing.T, wrap func(engine.Engine) engine.Engine, specs ...service.SandboxSpec) (service.Runtime, []service.SandboxState, func()) {
	t.Helper()
	i := newInstall(t)
	old := i.open()
	if _, err := old.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for n, s := range specs {
		state, err := old.Create(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		specs[n].Ports = state.Ports
		if _, err := run(t.Context(), old, s.ID, serveCode, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := old.Close(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	i.wrap = wrap
	n := i.open()
	t.Cleanup(func() {
		if err := n.Close(context.WithoutCancel(t.Context()), true); err != nil {
			t.Error(err)
		}
		for _, s := range specs {
			if err := n.Delete(context.WithoutCancel(t.Context()), s.ID); err != nil {
				t.Error(err)
			}
		}
		if left := i.left(); len(left) > 0 {
			t.Errorf("left on the host: %v", left)
		}
	})
	states, err := n.Sync(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	return n, states, n.Mend
}

// serveCode leaves a server behind that says who is there.
const serveCode = `setsid python3 -c '
import socket
s = socket.create_server(("127.0.0.1", 8000))
while True:
    c, _ = s.accept()
    c.sendall(b"lives")
    c.close()
' >/dev/null 2>&1 </dev/null &`

// meeting is an engine whose machines answer only when all are asked at once.
type meeting struct {
	engine.Engine
	all *sync.WaitGroup
}

func (e meeting) Recover(ctx context.Context, h engine.Handle) (engine.Machine, error) {
	e.all.Done()
	together := make(chan struct{})
	go func() { e.all.Wait(); close(together) }()
	select {
	case <-together:
		return e.Engine.Recover(ctx, h)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(5 * time.Second):
		return nil, errors.New("the others are not asked meanwhile")
	}
}

// TestMachinesAreTakenOverAtOnce: one that hangs must not hold the others up.
func TestMachinesAreTakenOverAtOnce(t *testing.T) {
	all := &sync.WaitGroup{}
	all.Add(3)
	_, states, _ := restarted(t, func(e engine.Engine) engine.Engine { return meeting{e, all} },
		spec(sandbox.Stateful), spec(sandbox.Stateful), spec(sandbox.Stateful))
	for _, s := range states {
		if s.Status != sandbox.Running {
			t.Errorf("%s is %s", s.ID, s.Status)
		}
	}
}

// severed is an engine whose machines can't be connected to the network so many times.
type severed struct {
	engine.Engine
	left *atomic.Int32
}

type severedMachine struct {
	engine.Machine
	left *atomic.Int32
}

func (e severed) Recover(ctx context.Context, h engine.Handle) (engine.Machine, error) {
	m, err := e.Engine.Recover(ctx, h)
	return severedMachine{m, e.left}, err
}

func (m severedMachine) Network() (engine.Network, error) {
	if m.left.Add(-1) >= 0 {
		return nil, errors.New("no more descriptors")
	}
	return m.Machine.Network()
}

func TestAMachineWithoutItsNetworkLivesOn(t *testing.T) {
	s := spec(sandbox.Stateful)
	s.Ports = []sandbox.Port{{GuestPort: 8000, Protocol: "tcp"}}
	left := &atomic.Int32{}
	left.Store(2)
	n, states, mend := restarted(t, func(e engine.Engine) engine.Engine { return severed{e, left} }, s)
	if states[0].Status != sandbox.Running || len(states[0].Ports) != 1 {
		t.Fatalf("after the restart: %+v", states[0])
	}
	answers := func() string {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(states[0].Ports[0].HostPort)))
		if err != nil { // reset already
			return ""
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 5)
		n, _ := c.Read(b)
		return string(b[:n])
	}
	for _, want := range []string{"", "", "lives"} {
		if want != "" {
			until(t, "the server from before the restart answers", func() bool { return answers() == want })
		} else if got := answers(); got != "" {
			t.Errorf("without a network the port says %q", got)
		}
		if o, err := run(t.Context(), n, states[0].ID, "echo x", nil); err != nil || o.StdoutBytes != 2 {
			t.Errorf("an exec: %+v, %v", o, err)
		}
		mend()
	}
}
