package microvm

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/microvm/link"
	"outpost.run/outpost/internal/vmm"
	"outpost.run/outpost/sandbox"
)

type machine struct {
	e      *Engine
	spec   engine.MachineSpec
	slot   int // of host ids
	base   int // the first of them
	build  string
	drives *drives
	vm     vmm.VM
	link   *link.Client

	restore  string      // the folder of the snapshot that it is made of; "": it boots
	ending   atomic.Bool // somebody ends it
	fell     bool        // its guest ended before it was up
	restored bool        // its keeper has answered

	mu    sync.Mutex // of spec.SandboxID
	stop  error
	once  sync.Once // of Stop
	letGo sync.Once // of Halt
}

func (m *machine) dir() string { return m.e.machineDir(m.spec.ID) }

// Handle implements engine.Machine.
func (m *machine) Handle() engine.Handle {
	m.mu.Lock()
	defer m.mu.Unlock()
	return engine.Handle{ID: m.spec.ID, SandboxID: m.spec.SandboxID, Stateful: m.spec.Stateful}
}

// Lease implements engine.Machine.
func (m *machine) Lease(sandboxID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spec.SandboxID = sandboxID
	if err := m.e.writeRecord(m.spec.ID, m.record()); err != nil {
		return err
	}
	return m.e.kernel.Yield(m.group(), false)
}

// Park implements engine.Machine.
func (m *machine) Park(ctx context.Context, x engine.ExecSpec) (engine.Exec, error) {
	inner, err := m.link.Park(ctx, x)
	if err != nil {
		return nil, err
	}
	return exec{inner, m}, nil
}

// Resume implements engine.Machine.
func (m *machine) Resume(ctx context.Context, execID string) (engine.Exec, error) {
	inner, err := m.link.Resume(ctx, execID)
	if err != nil {
		return nil, err
	}
	return exec{inner, m}, nil
}

// exec is one in the guest.
type exec struct {
	*link.Exec
	m *machine
}

// Isolation implements engine.Exec.
func (x exec) Isolation() sandbox.Isolation { return x.m.isolation(x.Exec.Isolation()) }

// Kill implements engine.Exec. A guest that doesn't answer is ended: nothing in it can be helped.
func (x exec) Kill() error {
	err := x.Exec.Kill()
	if err != nil {
		x.m.vm.Kill()
	}
	return err
}

// Warm implements engine.Machine.
func (m *machine) Warm(ctx context.Context, w agent.Warm) error { return m.link.Warm(ctx, w) }

// Attach implements engine.Machine.
func (m *machine) Attach(ctx context.Context, x engine.Mount) error {
	if x.Kind != engine.LayerMount {
		return sandbox.Errorf(sandbox.NotSupported, nil, "a running microVM can only be shown layers (%s)", x.Path)
	}
	number, err := m.drives.take(x.Path)
	if err != nil {
		return err
	}
	if err := m.vm.SetDrive(ctx, m.drives.all[number].ID, x.Source); err != nil {
		m.drives.give(x.Path)
		return internal(err, "the layer could not be shown")
	}
	x.Source = device(number)
	if err := m.link.Attach(ctx, x); err != nil {
		m.drives.give(x.Path)
		return err
	}
	return nil
}

// Detach implements engine.Machine. A drive whose layer a program still uses is not used again.
func (m *machine) Detach(ctx context.Context, path string) error {
	released, err := m.link.Detach(ctx, path)
	if released {
		m.drives.give(path)
	}
	return err
}

// Network implements engine.Machine.
func (m *machine) Network() (engine.Network, error) { return m.link.Network(), nil }

// Call implements engine.Machine.
func (m *machine) Call(ctx context.Context) (*agent.Conn, error) { return m.link.Call(ctx) }

// Ping implements engine.Machine.
func (m *machine) Ping(ctx context.Context) error { return m.link.Ping(ctx) }

// Memory implements engine.Machine.
func (m *machine) Memory() int64 { return m.group().Memory().All }

// Isolation implements engine.Machine.
func (m *machine) Isolation() sandbox.Isolation {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	return m.isolation(m.link.Isolation(ctx))
}

const askTime = 10 * time.Second

// isolation adds to what holds inside the guest, as its keeper read it there, what the host's kernel says of the monitor.
func (m *machine) isolation(inner sandbox.Isolation) sandbox.Isolation {
	i := sandbox.Isolation{Engine: "microvm", VMM: m.e.monitor.Name()}
	i.Requested, i.Effective, i.Missing = []string{}, []string{}, []string{}
	add := func(wanted, have []string) {
		i.Requested = append(i.Requested, wanted...)
		for _, name := range wanted {
			if slices.Contains(have, name) {
				i.Effective = append(i.Effective, name)
			} else {
				i.Missing = append(i.Missing, name)
			}
		}
	}
	add(vmm.Protections, m.vm.Isolation()) // apart from what a guest says: it may lie about itself, and about nothing else
	inside := slices.DeleteFunc(slices.Clone(inner.Requested), func(name string) bool { return slices.Contains(vmm.Protections, name) })
	add(inside, inner.Effective)
	return i
}

// Dead implements engine.Machine.
func (m *machine) Dead() <-chan struct{} { return m.vm.Dead() }

// haltTime is how long a guest may take to write its files.
const haltTime = 20 * time.Second

// Halt implements engine.Machine.
func (m *machine) Halt(ctx context.Context) error {
	m.letGo.Do(func() {
		m.ending.Store(true)
		if m.spec.Stateful {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltTime)
			defer cancel()
			if m.link.Halt(limited) == nil {
				select {
				case <-m.vm.Dead():
				case <-limited.Done():
				}
			}
		}
		m.link.Close()
		m.vm.Kill()
		select {
		case <-m.vm.Dead():
		case <-time.After(5 * time.Second): // Remove says what is left
		}
	})
	return m.e.Halt(context.WithoutCancel(ctx), m.Handle())
}

// Stop implements engine.Machine.
func (m *machine) Stop(ctx context.Context) error {
	m.once.Do(func() {
		began := time.Now()
		m.letGo.Do(func() { // what is dirty is of use to nobody
			m.ending.Store(true)
			m.link.Close()
			m.vm.Kill()
			select {
			case <-m.vm.Dead():
			case <-time.After(5 * time.Second):
			}
		})
		if m.stop = m.e.Remove(context.WithoutCancel(ctx), m.Handle()); m.stop == nil {
			m.e.observe("stop", time.Since(began))
		}
	})
	return m.stop
}

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, h engine.Handle) (engine.Machine, error) {
	gone := func(err error) error { return sandbox.Errorf(sandbox.Lost, err, "the machine was lost") }
	r, err := e.readRecord(h.ID)
	if err != nil {
		return nil, gone(err)
	}
	m := &machine{e: e, spec: r.Spec, slot: r.Slot, base: r.Base}
	if m.drives, err = e.drivesOf(m.spec); err != nil {
		return nil, gone(err)
	}
	if m.vm, err = e.monitor.Find(ctx, m.config()); err != nil {
		return nil, gone(err)
	}
	e.ranges.Keep(r.Slot)
	limited, cancel := context.WithTimeout(ctx, e.patient)
	defer cancel()
	if m.link, err = m.dial(limited); err != nil {
		return nil, gone(err)
	}
	if hello, err := m.link.Hello(limited); err != nil || !hello.Started {
		m.link.Close()
		return nil, gone(err)
	}
	for number := m.drives.first; number < len(m.drives.all); number++ { // what the former daemon showed may still be in use
		m.drives.busy[number] = !m.link.Release(limited, device(number))
	}
	go m.watch()
	return m, nil
}
