package service

import "context"

// Reap does once what the reaper does four times a second.
func (s *Service) Reap(ctx context.Context) { s.reapAll(ctx, true) }
