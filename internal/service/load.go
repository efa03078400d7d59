package service

import "outpost.run/outpost/sandbox"

// Load is what the server has on its hands, of all namespaces.
type Load struct {
	Sandboxes map[Kind]int
	Execs     int // that count in quotas
}

// Kind is what sandboxes are counted by.
type Kind struct {
	Mode   sandbox.Mode
	Status sandbox.Status
}

// Load counts what there is now; sandboxes that are being deleted count until they are gone.
func (s *Service) Load() Load {
	now := Load{Sandboxes: map[Kind]int{}, Execs: s.inuse.allExecs()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.live {
		now.Sandboxes[Kind{l.state.Mode, l.state.Status}]++
	}
	return now
}
