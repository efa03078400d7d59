// Package keeper is the first process of a guest. It makes the guest's one machine with the container engine, so that programs are
// held inside as they are on a host, and serves it to the daemon over a link.
package keeper

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/engine/container"
	"outpost.run/outpost/internal/engine/microvm/link"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/host/boot"
)

// dataDir is where the engine in the guest keeps what it needs; it is in memory.
const dataDir = "/run/outpost"

// Run is the guest's life. It returns only where it could not begin.
func Run() error {
	signal.Ignore(syscall.SIGCHLD) // the kernel reaps what nobody waits for
	if err := boot.Mounts(); err != nil {
		return err
	}
	if err := boot.Limits(); err != nil {
		return err
	}
	line, err := openLine()
	if err != nil {
		return err
	}
	machines, err := openEngine()
	if err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	k := &keeper{}
	k.guest = &link.Guest{
		Engine: machines, Hello: link.Hello{Build: boot.Parameter("outpost.build"), Kernel: unix.ByteSliceToString(uts.Release[:])},
		Rehearse: func(ctx context.Context, spec engine.MachineSpec) error {
			b, err := rehearse(ctx, machines, spec)
			if err == nil {
				k.guest.Keep(b)
			}
			return err
		},
		Release: func(device string) bool { machines.ForgetLayer(device); return boot.Unused(device) },
		Renew:   renew, Died: off, Halted: off,
	}
	fmt.Println("outpost: ready")
	return k.serve(line)
}

// openLine opens what the command line says: outpost.link=serial, or else the virtual socket.
func openLine() (boot.Line, error) {
	if boot.Parameter("outpost.link") == "serial" {
		return boot.OpenSerial(link.SerialPort)
	}
	return boot.ListenVsock(link.Port)
}

func openEngine() (*container.Engine, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, err
	}
	if err := host.OwnMounts(); err != nil {
		return nil, err
	}
	const installation = "guest"
	if err := os.WriteFile(dataDir+"/installation", []byte(installation), 0o600); err != nil {
		return nil, err
	}
	return container.Open(container.Options{Kernel: host.New(), DataDir: dataDir, Installation: installation})
}

func renew(r link.Renewal) error {
	if err := boot.AddEntropy(r.Entropy); err != nil {
		return err
	}
	return boot.SetTime(r.Time)
}

func off() { _ = boot.Off() }

// keeper serves one link at a time: a new one is the next daemon's, and ends the former.
type keeper struct {
	guest *link.Guest

	mu     sync.Mutex
	now    io.Closer
	served sync.WaitGroup
}

func (k *keeper) serve(line boot.Line) error {
	for {
		conn, err := line.Accept()
		if err != nil {
			return err
		}
		k.mu.Lock()
		former := k.now
		k.now = conn
		k.mu.Unlock()
		if former != nil {
			former.Close()
		}
		k.served.Wait()
		k.served.Go(func() { k.attend(conn) })
		if boot.Parameter("outpost.link") == "serial" { // its connections follow each other
			k.served.Wait()
		}
	}
}

// attend serves a link. A machine that does not outlive its daemon ends with it, and so does the guest of one that has died.
func (k *keeper) attend(conn io.ReadWriteCloser) {
	defer conn.Close()
	_ = k.guest.Serve(conn)
	if m := k.guest.Machine(); m != nil && !m.Handle().Stateful {
		off()
	}
}
