package link_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/engine/enginetest"
	"outpost.run/outpost/internal/engine/microvm/link"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/sandbox"
)

// TestMain enters a mount namespace of its own: nothing here may mount in the host's.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		if err := host.EnterPrivateMounts(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// TestMachinesAreTheSameOverALinkOnTheHost runs the engines' suite on containers that are spoken to as if they were in a guest.
func TestMachinesAreTheSameOverALinkOnTheHost(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite of engines takes half a minute")
	}
	for _, c := range container.Probe(t.Context()).Checks {
		if c.Required && !c.OK {
			t.Skipf("%s: %s; %s", c.Name, c.Found, c.Mend)
		}
	}
	var options container.Options
	open := func(t *testing.T) engine.Engine {
		e, err := container.Open(options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		return distant{e}
	}
	fresh := func(t *testing.T) engine.Engine {
		dir, err := os.MkdirTemp("/var/tmp", "outpost-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what was mounted there was so in our own namespace, and every case checks that it is gone
		options = container.Options{Kernel: host.New(), DataDir: dir, Installation: "test" + dir[len(dir)-6:]}
		if err := os.WriteFile(dir+"/installation", []byte(options.Installation), 0o600); err != nil {
			t.Fatal(err)
		}
		return open(t)
	}
	layers := imagetest.Layers(t, imagetest.Python)
	enginetest.Run(t, enginetest.Subject{Open: fresh, Reopen: open, Layers: layers})
	t.Run("a program that doesn't read what is sent to it holds up no other link", func(t *testing.T) { unread(t, fresh(t), layers) })
}

func unread(t *testing.T, e engine.Engine, layers []string) {
	spec := enginetest.Spec(layers)
	spec.Stateful = true
	started, err := e.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	m := started.(machine)
	defer func() { _ = m.Machine.Stop(context.WithoutCancel(t.Context())) }()
	x, err := m.Park(t.Context(), engine.ExecSpec{ID: "exec_unread", User: "sandbox", Limits: enginetest.Limits, Stays: true})
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{})
	go func() {
		_, _, _ = x.Run(agent.Run{Argv: []string{"sleep", "4009"}, Dir: "/workspace", MaxOutput: 1 << 20, Stays: "exec_unread"},
			agent.Feed{Stdin: zeros{}, Stdout: io.Discard, Stderr: io.Discard, Started: func() { close(began) }, Exited: func(agent.Exit) {}})
	}()
	<-began
	time.Sleep(300 * time.Millisecond) // until what lies between is full
	m.link.Close()
	select {
	case <-m.served:
	case <-time.After(20 * time.Second):
		t.Error("the guest still serves a link that has ended")
	}
}

// zeros never ends.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// distant is an engine whose machines are spoken to over links.
type distant struct{ *container.Engine }

func (d distant) Start(ctx context.Context, spec engine.MachineSpec) (engine.Machine, error) {
	near, far, err := pair()
	if err != nil {
		return nil, err
	}
	guest := &link.Guest{Engine: d.Engine, Release: func(string) bool { return false }, Died: func() {}, Halted: func() {}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = guest.Serve(far)
	}()
	client, err := link.New(near)
	if err != nil {
		return nil, err
	}
	if err := client.Start(ctx, spec); err != nil {
		client.Close()
		return nil, err
	}
	return machine{guest.Machine(), client, served}, nil
}

// Blank is not for machines that are reached by no descriptor.
func (distant) Blank(context.Context, string, int) (engine.Blank, error) {
	return nil, sandbox.Errorf(sandbox.NotSupported, nil, "a distant machine is made whole")
}

func pair() (near, far net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	conns := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "link")
		conns[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return conns[0], conns[1], nil
}

// machine is one whose calls go over a link, where they are a link's.
type machine struct {
	engine.Machine
	link   *link.Client
	served <-chan struct{} // closed when the guest is done with the link
}

func (m machine) Park(ctx context.Context, x engine.ExecSpec) (engine.Exec, error) {
	return m.link.Park(ctx, x)
}
func (m machine) Resume(ctx context.Context, id string) (engine.Exec, error) {
	return m.link.Resume(ctx, id)
}
func (m machine) Warm(ctx context.Context, w agent.Warm) error     { return m.link.Warm(ctx, w) }
func (m machine) Attach(ctx context.Context, x engine.Mount) error { return m.link.Attach(ctx, x) }
func (m machine) Detach(ctx context.Context, path string) error {
	_, err := m.link.Detach(ctx, path)
	return err
}
func (m machine) Call(ctx context.Context) (*agent.Conn, error) { return m.link.Call(ctx) }
func (m machine) Ping(ctx context.Context) error                { return m.link.Ping(ctx) }
func (m machine) Network() (engine.Network, error)              { return m.link.Network(), nil }
func (m machine) Isolation() sandbox.Isolation                  { return m.link.Isolation(context.Background()) }
func (m machine) Stop(ctx context.Context) error {
	err := m.Machine.Stop(ctx)
	return err
}

// TestAGuestThatOpensAStreamIsHungUpOn: what it sends there would be kept in the daemon's memory.
func TestAGuestThatOpensAStreamIsHungUpOn(t *testing.T) {
	near, far, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	client, err := link.New(near)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	guest, err := yamux.Server(far, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	_, _ = guest.Open() // it may hear of the hang-up already
	select {
	case <-client.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the link lives on")
	}
	if err := client.Ping(t.Context()); sandbox.CodeOf(err) != sandbox.Lost {
		t.Errorf("a call over the link that has ended: %v", err)
	}
}

// TestAnAnswerThatIsTooLongOrNoneIsALostMachine: nothing that a guest answers is believed or waited for without an end.
func TestAnAnswerThatIsTooLongOrNoneIsALostMachine(t *testing.T) {
	for name, answer := range map[string]string{
		"too long": "a\xff\xff\xff\xff", "of another kind": "Z\x00\x00\x00\x00", "no JSON": "a\x00\x00\x00\x01{", "none": "",
		"a code of its own": "a\x00\x00\x00\x2b" + `{"Error":{"Code":"forbidden","Message":"x"}}`[:43],
	} {
		near, far, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		client, err := link.New(near)
		if err != nil {
			t.Fatal(err)
		}
		guest, err := yamux.Server(far, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if s, err := guest.Accept(); err == nil {
				_, _ = s.Write([]byte(answer))
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := client.Ping(ctx); sandbox.CodeOf(err) != sandbox.Lost {
			t.Errorf("%s: %v, want %s", name, err, sandbox.Lost)
		}
		cancel()
		client.Close()
		guest.Close()
	}
}
