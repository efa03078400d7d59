package image

import "context"

// Ensure is EnsureFor the host itself.
func (s *Store) Ensure(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	return s.EnsureFor(ctx, Asker{Host: true}, ref, progress)
}

// EnsureFor gives the image of ref, getting it where it is missing; progress (nil for none) is called from this goroutine
// while it waits. Callers of one ref share one pull or build, which goes on when a caller's ctx ends, but not for longer
// than a while when nobody waits. What a tag means is looked up once: Refresh looks again.
//
// Errors: ImageNotFound, a reference, suite or package that is not there or not for the asker, with the reason; Invalid, a
// form that is not for the asker; NotSupported, this host can't build images, with what mends it; Capacity, the store's
// disk or the namespace's share of pulls and builds is full; Internal, with
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
	f, err := s.join(r, by, credentials)
	if err != nil {
		return Image{}, err
	}
	defer s.leave(f)
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
