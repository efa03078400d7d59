// Package hosttest is the real kernel that is made to fail: at its n-th changing call it refuses, or the daemon is as
// good as dead from there on and can undo nothing. There is no list of calls to keep up to date.
package hosttest

import (
	"errors"
	"sync"

	"outpost.run/outpost/internal/host"
)

// How a call goes wrong.
type How string

// Fail: the call answers an error and all others work. Crash: it and all later ones fail, and nothing is undone.
const (
	Fail  How = "fails"
	Crash How = "crashes"
)

// ErrInjected is what a refused call answers.
var ErrInjected = errors.New("refused by hosttest")

// Kernel is a real kernel with a fault in it.
type Kernel struct {
	*host.Kernel
	at  int
	how How

	mu    sync.Mutex
	calls int
	last  string
	dead  bool
}

// Arm counts anew: the n-th call from now on (from 1) goes wrong.
func (k *Kernel) Arm(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at, k.calls, k.last = n, 0, ""
}

// New makes a kernel whose n-th call (from 1) goes wrong; with 0 none does until Arm.
func New(n int, how How) *Kernel {
	k := &Kernel{at: n, how: how}
	k.Kernel = host.NewWithHook(k.before)
	return k
}

func (k *Kernel) before(call string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return ErrInjected
	}
	if call == host.CallUndo {
		return nil
	}
	k.calls++
	if k.calls == k.at {
		k.last, k.dead = call, k.how == Crash
		return ErrInjected
	}
	return nil
}

// Hit says whether the fault was met, and at which call.
func (k *Kernel) Hit() (call string, hit bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last, k.last != ""
}
