package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// Images implements service.Runtime.
func (n *Node) Images(_ context.Context, namespace string, operator bool) ([]sandbox.ImageInfo, error) {
	all, err := n.images.List()
	if err != nil {
		return nil, err
	}
	infos := []sandbox.ImageInfo{}
	for _, x := range all {
		if !n.defaults[x.Ref] && !n.images.MayUse(x, image.Asker{Namespace: namespace, Operator: operator}) {
			continue
		}
		infos = append(infos, sandbox.ImageInfo{
			Image: x.Ref, Digest: x.Digest, SizeBytes: x.SizeBytes, CreatedAt: sandbox.At(x.CreatedAt), UsedAt: sandbox.At(x.UsedAt),
		})
	}
	return infos, nil
}

// image waits for a sandbox's image, which may first have to be pulled or made. Its layers stay until release.
func (n *Node) image(ctx context.Context, s service.SandboxSpec) (img image.Image, release func(), err error) {
	wait := s.CreateWait
	if wait <= 0 {
		wait = time.Minute
	}
	limited, cancel := n.bounded(ctx, wait)
	defer cancel()
	by := image.Asker{Namespace: s.Namespace, Operator: s.Operator, Host: n.defaults[image.Canonical(s.Image)]}
	_, part := phase.Begin(ctx, "image")
	img, err = n.images.EnsureFor(limited, by, s.Image, nil)
	part.End(err)
	if err != nil && errors.Is(limited.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		how := ""
		if p, ok := n.images.Building(s.Image); ok && p.Total > 0 {
			how = fmt.Sprintf(": %s %d of %d", p.Phase, p.Done, p.Total)
		} else if ok {
			how = ": " + p.Phase
		}
		e := sandbox.Errorf(sandbox.ImagePreparing, nil, "the image %s is being made%s; try again", s.Image, how)
		e.RetryAfterSecs = 5
		return img, nil, e
	}
	if err != nil {
		return img, nil, err
	}
	return img, n.use(img), nil
}

// use spares an image's layers until the function it gives is called.
func (n *Node) use(img image.Image) (release func()) {
	add := func(by int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, l := range img.Layers {
			if n.using[l] += by; n.using[l] == 0 {
				delete(n.using, l)
			}
		}
	}
	add(1)
	return func() { add(-1) }
}

// imageOf is the sandbox's image. After a restart it is the one that it was made from; what an ephemeral one was made
// from may be gone, and is then what its reference means by now.
func (n *Node) imageOf(ctx context.Context, b *box) (image.Image, error) {
	b.mu.Lock()
	img := b.image
	b.mu.Unlock()
	if len(img.Layers) > 0 {
		return img, nil
	}
	img, ok := n.madeFrom(b.spec)
	if !ok && b.spec.Mode == sandbox.Stateful {
		return img, sandbox.Errorf(sandbox.Lost, nil, "the image that the sandbox was made from is gone, and its files mean nothing without it: delete it and create it anew")
	}
	if !ok {
		var release func()
		var err error
		if img, release, err = n.image(ctx, b.spec); err != nil {
			return img, err
		}
		defer release()
	}
	b.mu.Lock()
	b.image = img
	b.mu.Unlock()
	return img, nil
}

// madeFrom is the image that a sandbox of a former server was made from.
func (n *Node) madeFrom(s service.SandboxSpec) (image.Image, bool) {
	if img, ok := n.images.PinOf(s.ID); ok {
		return img, true
	}
	return n.images.ByDigest(s.ImageDigest)
}

// foreignUser is as whom programs run where the preset says sandbox and the image has no such user.
const foreignUser = "1000:1000"

// fitted is a sandbox's spec with what the image says where nobody else did.
func fitted(s service.SandboxSpec, img image.Image) service.SandboxSpec {
	c := img.Config
	if s.Unsaid.WorkingDir && c.WorkingDir != "" {
		s.WorkingDir = c.WorkingDir
	}
	switch {
	case !s.Unsaid.User:
	case s.Unsaid.Preset && c.User != "" && !rootName(c.User):
		s.Security.User = c.User
	case s.Security.User == "sandbox" && c.NoSandbox:
		s.Security.User = foreignUser
	}
	return s
}

func rootName(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "root" || strings.Trim(name, "0") == ""
}

// pinImage keeps the layers under a stateful sandbox's files over restarts.
func (n *Node) pinImage(_ context.Context, b *box) error {
	if b.spec.Mode != sandbox.Stateful {
		return nil
	}
	return n.images.Pin(b.spec.ID, b.image)
}

// sweepImages lets go of images whose sandboxes are gone, and brings the store under its budget.
func (n *Node) sweepImages() {
	owners, err := n.images.Pinned()
	for _, id := range owners {
		if !n.owned(id) {
			err = errors.Join(err, n.images.Unpin(id))
		}
	}
	if n.budget > 0 {
		var removed []string
		inUse := n.layersInUse()
		var err2 error
		removed, err2 = n.images.Prune(n.budget, image.Spare{Ref: func(ref string) bool { return n.defaults[ref] }, Layer: func(path string) bool { return inUse[path] }})
		if err = errors.Join(err, err2); len(removed) > 0 {
			n.log.Info("images unused for longest were removed", "images", removed)
		}
	}
	n.engine.DropLayers()
	if err != nil {
		n.log.Error("the image store could not be swept", "error", err)
	}
}

// layersInUse are the files that a machine has mounted or may mount next.
func (n *Node) layersInUse() map[string]bool {
	inUse := map[string]bool{}
	n.mu.Lock()
	boxes := slices.Collect(maps.Values(n.boxes))
	for l := range n.using {
		inUse[l] = true
	}
	n.mu.Unlock()
	for _, b := range boxes {
		b.mu.Lock()
		for _, l := range b.image.Layers {
			inUse[l] = true
		}
		b.mu.Unlock()
	}
	return inUse
}
