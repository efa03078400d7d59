package deps

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/sandbox"
)

// slowImages makes no image before it is let.
type slowImages struct {
	asked chan image.Asker
	let   chan struct{}
}

func (s *slowImages) Get(string) (image.Image, bool) { return image.Image{}, false }

func (s *slowImages) EnsureFor(ctx context.Context, by image.Asker, _ string, _ func(image.Progress)) (image.Image, error) {
	s.asked <- by
	select {
	case <-s.let:
		return image.Image{}, sandbox.Errorf(sandbox.ImageNotFound, nil, "there is none")
	case <-ctx.Done():
		return image.Image{}, ctx.Err()
	}
}

func newInstaller(t *testing.T) (*Installer, *slowImages) {
	t.Helper()
	images := &slowImages{make(chan image.Asker, 10), make(chan struct{})}
	in, err := New(Options{Images: images, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return in, images
}

func TestDebianPackagesAreBuiltInTheNamespacesShare(t *testing.T) {
	in, images := newInstaller(t)
	close(images.let)
	_, _, err := in.Debian(t.Context(), "acme", image.Image{Ref: "deb:trixie"}, []string{"nothing-of-that-name"})
	if sandbox.CodeOf(err) != sandbox.DepsFailed {
		t.Error(err)
	}
	if by := <-images.asked; by.Namespace != "acme" || !by.Host {
		t.Errorf("asked by %+v", by)
	}
}

func TestWhoWaitsForAManagersDefaultsCanLeave(t *testing.T) {
	in, images := newInstaller(t)
	first, second := make(chan error, 1), make(chan error, 1)
	holds, release := context.WithCancel(t.Context())
	go func() { _, err := in.ask(holds, recipes["python"]); first <- err }()
	<-images.asked
	waits, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go func() { _, err := in.ask(waits, recipes["node"]); second <- err }()
	if err := <-second; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	release()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestWhoWaitsForAnImageTakesNobodysTurn(t *testing.T) {
	in, images := newInstaller(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := in.inTurn(ctx, "k", Request{Namespace: "a", Image: image.Image{Ref: "deb:trixie"}}, plan{recipe: recipes["python"]})
		ended <- err
	}()
	if by := <-images.asked; by.Namespace != "a" {
		t.Errorf("asked by %+v", by)
	}
	soon, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	done, err := in.turn(soon, "a")
	if err != nil {
		t.Fatal(err)
	}
	done()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestInstallationThatPanicsEndsNothing(t *testing.T) {
	in, _ := newInstaller(t)
	in.Images = nil // who asks it panics
	if _, err := in.inTurn(t.Context(), "k", Request{Namespace: "a", Image: image.Image{Ref: "deb:trixie"}}, plan{recipe: recipes["python"]}); sandbox.CodeOf(err) != sandbox.DepsFailed {
		t.Error(err)
	}
	if _, err := in.turn(t.Context(), "a"); err != nil {
		t.Errorf("its turn: %v", err)
	}
}
