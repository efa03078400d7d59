package microvm_test

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/enginetest"
	"outpost.run/outpost/internal/image/imagetest"
)

func TestAGuestThatSendsPacketsIsHeardAndItsServersAreReached(t *testing.T) {
	e := newInstall(t, realMonitor(t)).open()
	spec := enginetest.Spec(imagetest.Layers(t, imagetest.Python))
	spec.Egress, spec.Stateful = "public", true
	m, err := e.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(context.WithoutCancel(t.Context())) })
	network, err := m.Network()
	if err != nil {
		t.Fatal(err)
	}
	link, err := network.Link(t.Context(), engine.LinkSpec{Name: engine.EgressInterface, MTU: 9000,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	if i := m.Isolation(); !strings.Contains(strings.Join(i.Effective, " "), "egress_filtered") {
		t.Errorf("with its link isolation says %+v", i)
	}
	heard := make(chan []byte, 1)
	go func() {
		for packet := make([]byte, 9000); ; {
			n, err := link.Read(packet)
			if err != nil {
				return
			}
			if n > 20 && packet[0]>>4 == 4 && bytes.Equal(packet[16:20], []byte{192, 0, 2, 1}) {
				heard <- bytes.Clone(packet[:n])
				return
			}
		}
	}()
	says(t, m, "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'of the guest' * 700, ('192.0.2.1', 9))")
	select {
	case packet := <-heard:
		if !bytes.Contains(packet, []byte("of the guest")) || len(packet) != 28+12*700 {
			t.Errorf("a packet of %d bytes: %q…", len(packet), packet[:60])
		}
	case <-time.After(10 * time.Second):
		t.Error("what the guest sent was not heard")
	}
	server := serve(t, m)
	defer server()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		c, err := network.Dial(t.Context(), "tcp", netip.MustParseAddrPort("127.0.0.1:8000"))
		if err == nil {
			_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			b, err := io.ReadAll(c)
			c.Close()
			if err != nil || !strings.HasPrefix(string(b), "HTTP/1.0 200") {
				t.Errorf("the server inside answered %q, %v", b, err)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// serve runs a web server in a machine until the function that it gives is called.
func serve(t *testing.T, m engine.Machine) (stop func()) {
	t.Helper()
	x, err := m.Park(t.Context(), engine.ExecSpec{ID: "exec_of_a_server", User: "sandbox", Limits: enginetest.Limits})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = x.Run(agent.Run{Argv: []string{"python3", "-m", "http.server", "8000", "--bind", "127.0.0.1"}, Dir: "/workspace", MaxOutput: 1 << 20},
			agent.Feed{Stdout: io.Discard, Stderr: io.Discard, Started: func() {}, Exited: func(agent.Exit) {}})
	}()
	return func() {
		_ = x.Kill()
		<-done
		x.Close()
	}
}
