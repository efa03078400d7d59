package image

import (
	"context"
	"errors"

	"outpost.run/outpost/sandbox"
)

// flight is one pull or build under way and what its waiters see of it.
type flight struct {
	done    chan struct{}
	changed chan struct{} // closed and replaced with each step
	now     Progress
	img     Image
	err     error
}

// Ensure is EnsureFor the host itself.
func (s *Store) Ensure(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	return s.EnsureFor(ctx, Asker{Host: true}, ref, progress)
}

// EnsureFor gives the image of ref, getting it where it is missing; progress (nil for none) is called from this goroutine
// while it waits. Callers of one ref share one pull or build, which goes on when a caller's ctx ends. What a tag means
// is looked up once: Refresh looks again.
//
// Errors: ImageNotFound, a reference, suite or package that is not there or not for the asker, with the reason; Invalid, a
// form that is not for the asker; NotSupported, this host can't build images, with what mends it; Capacity; Internal, with
// the failing tool's last line. What failed is tried anew by the next call.
func (s *Store) EnsureFor(ctx context.Context, by Asker, ref string, progress func(Progress)) (Image, error) {
	return s.ensure(ctx, by, ref, false, progress)
}

// Refresh is Ensure that looks again what a registry's reference or a path means; the image so far stays while it does,
// and for sandboxes that have it.
func (s *Store) Refresh(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	return s.ensure(ctx, Asker{Host: true}, ref, true, progress)
}

func (s *Store) ensure(ctx context.Context, by Asker, ref string, anew bool, progress func(Progress)) (Image, error) {
	r, err := parseReference(ref)
	if err != nil {
		return Image{}, err
	}
	credentials, err := s.admit(r, by)
	if err != nil {
		return Image{}, err
	}
	if m, ok := s.ready(r); ok && (!anew || r.form == packages) {
		if err := s.mayUse(m, r, by); err != nil {
			return Image{}, err
		}
		if img, ok := s.Get(ref); ok {
			return img, nil
		}
	}
	f, err := s.join(r, credentials)
	if err != nil {
		return Image{}, err
	}
	for {
		s.mu.Lock()
		now, changed := f.now, f.changed
		s.mu.Unlock()
		if progress != nil && now.Phase != "" {
			progress(now)
		}
		select {
		case <-f.done:
			return f.img, f.err
		case <-changed:
		case <-ctx.Done():
			return Image{}, ctx.Err()
		}
	}
}

// ready is the manifest of an image whose layers are all there.
func (s *Store) ready(r reference) (manifest, bool) {
	m, err := readManifest(s.refPath(r.String()))
	if err != nil {
		return m, false
	}
	_, ok := s.imageOf(m)
	return m, ok
}

// join gives the pull or build of r that is under way, or starts it.
func (s *Store) join(r reference, credentials bool) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ref := r.String()
	if f, ok := s.flights[ref]; ok {
		return f, nil
	}
	if s.ctx.Err() != nil {
		return nil, sandbox.Errorf(sandbox.ShuttingDown, nil, "the image store is closed")
	}
	f := &flight{done: make(chan struct{}), changed: make(chan struct{}), now: Progress{Ref: ref, Phase: "waiting"}}
	s.flights[ref] = f
	s.work.Go(func() {
		f.img, f.err = s.obtain(s.ctx, r, credentials, func(phase string, done, total int64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			f.now = Progress{Ref: ref, Phase: phase, Done: done, Total: total}
			close(f.changed)
			f.changed = make(chan struct{})
		})
		if f.err != nil && s.ctx.Err() != nil {
			f.err = sandbox.Errorf(sandbox.ShuttingDown, f.err, "the image build was ended")
		}
		f.err = typed(f.err)
		s.mu.Lock()
		if delete(s.flights, ref); len(s.flights) == 0 {
			clear(s.expected)
		}
		s.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

func (s *Store) obtain(ctx context.Context, r reference, credentials bool, step func(string, int64, int64)) (Image, error) {
	switch r.form {
	case packages:
		return s.build(ctx, r, step)
	case registryForm:
		return s.pull(ctx, r, credentials, step)
	}
	return s.local(ctx, r, step)
}

// typed gives err the code Internal where it has none.
func typed(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*sandbox.Error](err); ok {
		return err
	}
	return sandbox.Errorf(sandbox.Internal, err, "the image could not be made; the server's log says why")
}

// Building tells how far the build of ref is, if one is under way in this process.
func (s *Store) Building(ref string) (Progress, bool) {
	r, err := parseReference(ref)
	if err != nil {
		return Progress{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.flights[r.String()]
	if !ok {
		return Progress{}, false
	}
	return f.now, true
}
