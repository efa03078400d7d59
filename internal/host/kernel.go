// Package host is the only room with raw kernel calls: mounts, control groups, namespaces, loop devices, processes.
// Every call that changes the host is a method of Kernel, so that hosttest can make it fail or crash.
package host

import (
	"fmt"
	"os"
	"sync"
)

// Kernel is the host's kernel. The zero value is not usable; see New.
type Kernel struct {
	before func(call string) error // hosttest's seam; nil in production
	mounts *mounter
}

// New is the real kernel.
func New() *Kernel { return NewWithHook(nil) }

// NewWithHook is the real kernel with a hook that runs before each changing call and may refuse it (hosttest).
func NewWithHook(before func(call string) error) *Kernel {
	return &Kernel{before: before, mounts: newMounter()}
}

func (k *Kernel) enter(call string) error {
	if k.before == nil {
		return nil
	}
	if err := k.before(call); err != nil {
		return &StepError{Step: call, Err: err}
	}
	return nil
}

// StepError says which kernel call failed.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Err) }

// Unwrap gives the kernel's error.
func (e *StepError) Unwrap() error { return e.Err }

func step(name string, err error) error {
	if err == nil {
		return nil
	}
	return &StepError{Step: name, Err: err}
}

// Undo collects what takes back a half-done work; Run does so, last first, unless Keep was called. Parts of the work that are
// done at once may Add at once.
type Undo struct {
	mu    sync.Mutex
	steps []func()
}

// Add adds one step.
func (u *Undo) Add(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.steps = append(u.steps, f)
}

// Keep forgets all steps: the work is done.
func (u *Undo) Keep() { u.steps = nil }

// Run takes back, last first.
func (u *Undo) Run() {
	for i := len(u.steps) - 1; i >= 0; i-- {
		u.steps[i]()
	}
	u.steps = nil
}

// Enter is for a change of the host that another room makes: it passes hosttest's seam.
func (k *Kernel) Enter(call string) error { return k.enter(call) }

// CallUndo is what the hook is asked before something is undone.
const CallUndo = "undo"

// Undo runs f unless the daemon is playing dead (hosttest): a crashed one undoes nothing.
func (k *Kernel) Undo(f func()) {
	if k.before == nil || k.before(CallUndo) == nil {
		f()
	}
}

// MakeDir makes one directory for root alone.
func (k *Kernel) MakeDir(path string) error {
	if err := k.enter("make directory"); err != nil {
		return err
	}
	return step("make directory", os.Mkdir(path, 0o700))
}
