package node

import (
	"sync"
	"time"

	"outpost.run/outpost/internal/engine"
)

// Watcher hears of machines and of execs in them, by the name of their engine. Both are told when they are over.
type Watcher interface {
	// MachineStarts: an engine makes a machine.
	MachineStarts(engine string) (end func(error))
	// ExecPlaced: an exec has its place in a machine.
	ExecPlaced(engine string) (end func())
	// MachinePhase: a part of a machine's making that is the node's took so long.
	MachinePhase(engine, phase string, took time.Duration)
}

// unwatched is where nobody wants to hear.
type unwatched struct{}

func (unwatched) MachineStarts(string) func(error) { return func(error) {} }
func (unwatched) ExecPlaced(string) func()         { return func() {} }

func (unwatched) MachinePhase(string, string, time.Duration) {}

// The names of engines, as Isolation.Engine has them.
const (
	containers = "container"
	microVMs   = "microvm"
)

// census knows which machines live: those whose end it has not seen. It asks none to tell of its end.
type census struct {
	mu    sync.Mutex
	ends  map[string][]<-chan struct{} // by engine
	prune int                          // how many there may be of one engine before the dead are struck off
}

const fewMachines = 64

func newCensus() *census { return &census{ends: map[string][]<-chan struct{}{}, prune: fewMachines} }

func (c *census) add(of string, m engine.Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends[of] = append(c.ends[of], m.Dead()); len(c.ends[of]) > c.prune {
		c.strike(of)
		c.prune = max(fewMachines, 2*len(c.ends[of]))
	}
}

func (c *census) strike(of string) {
	living := c.ends[of][:0]
	for _, dead := range c.ends[of] {
		select {
		case <-dead:
		default:
			living = append(living, dead)
		}
	}
	clear(c.ends[of][len(living):])
	c.ends[of] = living
}

func (c *census) count(of string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strike(of)
	return len(c.ends[of])
}

// Machines is how many live of each engine that this host has, those of the pool included.
func (n *Node) Machines() map[string]int {
	all := map[string]int{containers: n.engine.census.count(containers)}
	if n.engine.microVM != nil {
		all[microVMs] = n.engine.census.count(microVMs)
	}
	return all
}
