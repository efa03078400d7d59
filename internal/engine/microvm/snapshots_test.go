package microvm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/enginetest"
	"outpost.run/outpost/internal/image/imagetest"
)

// who prints what no two machines may have in common, and the time.
const who = `
import os, random, socket, time, uuid
print(os.urandom(16).hex(), hash("outpost"), open("/proc/sys/kernel/random/boot_id").read().strip(), uuid.uuid4(), random.random(), sep="\n")
print(time.time())`

// says runs code in a machine.
func says(t *testing.T, m engine.Machine, code string) string {
	t.Helper()
	x, err := m.Park(t.Context(), engine.ExecSpec{ID: "exec_of_a_test", User: "sandbox", Limits: enginetest.Limits})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	var out, errs bytes.Buffer
	exit, _, err := x.Run(agent.Run{Interpreter: []string{"python3"}, FileName: "main.py", Code: &code, Dir: "/workspace", MaxOutput: 1 << 20},
		agent.Feed{Stdout: &out, Stderr: &errs, Started: func() {}, Exited: func(agent.Exit) {}})
	if err != nil || exit.Code != 0 {
		t.Fatalf("%v, exit %d: %s", err, exit.Code, &errs)
	}
	return strings.TrimSpace(out.String())
}

// tcpTick is what the first sequence number of a connection between the same ends grows by in time. Source: secure_tcp_seq, seq_scale in
// net/core/secure_seq.c of Linux.
const tcpTick = 64 * time.Nanosecond

// alike says that two have the same numbers, but for what clocks and the way to here make of it.
func alike(one, other map[uint16]uint32) bool {
	for port, number := range one {
		if apart := time.Duration(int32(other[port]-number)) * tcpTick; apart.Abs() > 5*time.Second {
			return false
		}
	}
	return len(one) == 4 && len(other) == 4
}

// sequenceNumbers are the first ones of connections from four ports of a machine to one address, without what the time adds: what is left
// is the hash of the ends, with the guest's secret.
func sequenceNumbers(t *testing.T, m engine.Machine) map[uint16]uint32 {
	t.Helper()
	network, err := m.Network()
	if err != nil {
		t.Fatal(err)
	}
	link, err := network.Link(t.Context(), engine.LinkSpec{Name: engine.EgressInterface, MTU: 1500,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	heard := make(chan map[uint16]uint32)
	go func() {
		all := map[uint16]uint32{}
		for packet := make([]byte, 1500); len(all) < 4; {
			n, err := link.Read(packet)
			if err != nil {
				break
			}
			if p := packet[:n]; n >= 40 && p[0] == 0x45 && p[9] == 6 && bytes.Equal(p[16:20], []byte{192, 0, 2, 1}) && p[33] == 2 { // IPv4, TCP, SYN
				all[binary.BigEndian.Uint16(p[20:])] = binary.BigEndian.Uint32(p[24:]) - uint32(time.Now().UnixNano()/int64(tcpTick))
			}
		}
		heard <- all
	}()
	says(t, m, `
import socket
for port in range(5001, 5005):
    s = socket.socket()
    s.setblocking(False)
    s.bind(('10.0.0.2', port))
    s.connect_ex(('192.0.2.1', 80))`)
	select {
	case all := <-heard:
		return all
	case <-time.After(10 * time.Second):
		t.Error("its connections are not heard")
		return nil
	}
}

func TestGuestsOfOneSnapshotAreNotAlike(t *testing.T) {
	in := newInstall(t, realMonitor(t))
	in.Snapshots = true
	phases := map[string]time.Duration{}
	in.Observe = func(phase string, took time.Duration) { phases[phase] = took }
	e := in.open()
	layers := imagetest.Layers(t, imagetest.Python)
	begin := func() (engine.Machine, time.Duration, string) {
		began := time.Now()
		spec := enginetest.Spec(layers)
		spec.Egress = "public"
		m, err := e.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Stop(context.WithoutCancel(t.Context())) })
		says(t, m, "print(1)")
		took := time.Since(began)
		return m, took, says(t, m, who)
	}
	first, _, _ := begin()
	for end := time.Now().Add(3 * time.Minute); e.Snapshots() == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no snapshot was made")
		}
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.Snapshots = false
	cold, booted, _ := func() (engine.Machine, time.Duration, string) {
		fresh := newInstall(t, realMonitor(t)).open() // without snapshots, and with nobody beside it
		began := time.Now()
		m, err := fresh.Start(t.Context(), enginetest.Spec(layers))
		if err != nil {
			t.Fatal(err)
		}
		says(t, m, "print(1)")
		return m, time.Since(began), ""
	}()
	if err := cold.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var said [][]string
	var restored time.Duration
	var clones []engine.Machine
	for range 3 {
		m, took, text := begin()
		clones = append(clones, m)
		if restored == 0 || took < restored { // the host has other things to do, too
			restored = took
		}
		said = append(said, strings.Split(text, "\n"))
		if phases["restore"] == 0 {
			t.Fatal("the guest was not made of the snapshot")
		}
	}
	fmt.Fprintf(os.Stderr, "cold boot to the first answer %v, restored %v: %.2f; phases %v\n", booted, restored, float64(restored)/float64(booted), phases)
	for i, what := range []string{"getrandom", "the hash seed", "boot_id", "uuid4", "random"} {
		for a := range said {
			for b := range a {
				if said[a][i] == said[b][i] {
					t.Errorf("two guests of one snapshot have the same %s: %s", what, said[a][i])
				}
			}
		}
	}
	one, again, other := sequenceNumbers(t, clones[0]), sequenceNumbers(t, clones[0]), sequenceNumbers(t, clones[1])
	if !alike(one, again) { // else this would tell nothing
		t.Errorf("one guest numbers its connections now so, now otherwise: %v, %v", one, again)
	}
	if alike(one, other) {
		t.Errorf("two guests of one snapshot number their connections alike: %v, %v", one, other)
	}
	var now float64
	if _, err := fmt.Sscan(said[2][5], &now); err != nil || now < float64(time.Now().Add(-time.Minute).Unix()) || now > float64(time.Now().Add(time.Second).Unix()) {
		t.Errorf("a restored guest's clock says %s (%v)", said[2][5], err)
	}
	if restored > booted/2 {
		t.Errorf("a restored guest's first answer took %v, a booted one's %v", restored, booted)
	}
}
