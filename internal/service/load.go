package service

import (
	"context"

	"outpost.run/outpost/sandbox"
)

// Load is what the server has on its hands, of all namespaces.
type Load struct {
	Sandboxes map[Kind]int
	Execs     int                       // that count in quotas
	Jobs      map[sandbox.JobStatus]int // that have not ended; nil: the queue could not be read
}

// Kind is what sandboxes are counted by.
type Kind struct {
	Mode   sandbox.Mode
	Status sandbox.Status
}

// Load counts what there is now; sandboxes that are being deleted count until they are gone.
func (s *Service) Load() Load {
	now := Load{Sandboxes: map[Kind]int{}, Execs: s.inuse.allExecs()}
	if queued, running, err := s.queue.Load(context.Background()); err == nil {
		now.Jobs = map[sandbox.JobStatus]int{sandbox.JobQueued: queued, sandbox.JobRunning: running}
	} else {
		s.log.Error("the jobs could not be counted", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.live {
		now.Sandboxes[Kind{l.state.Mode, l.state.Status}]++
	}
	return now
}
