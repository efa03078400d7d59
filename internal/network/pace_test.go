package network

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

type aLink struct{ *os.File }

func (aLink) Leave() error { return nil }

// TestALinkIsReadAtItsPace: a machine that sends more than its link's pace is not read any faster, and its end is no wait.
func TestALinkIsReadAtItsPace(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	device, machine := os.NewFile(uintptr(pair[0]), "device"), os.NewFile(uintptr(pair[1]), "machine")
	ctx, cancel := context.WithCancel(t.Context())
	e := &tunEnd{link: aLink{device}, ctx: ctx, pace: rate.NewLimiter(1000, 2*packetBatch)}
	e.reading.Go(e.read)
	sent, ended := atomic.Int64{}, make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, err := machine.Write([]byte("x")); err != nil {
				return
			}
			sent.Add(1)
		}
	}()
	start := time.Now()
	time.Sleep(300 * time.Millisecond) // in which it would be hundreds of thousands
	const queue = 2000                 // what the socket itself may hold
	if most := int64(2*packetBatch+packetBatch+queue) + time.Since(start).Milliseconds(); sent.Load() > most {
		t.Errorf("%d packets passed, of at most %d", sent.Load(), most)
	}
	e.pace.ReserveN(time.Now(), 2*packetBatch) // so that it waits
	cancel()
	device.Close()
	e.reading.Wait()
	machine.Close()
	<-ended
}
