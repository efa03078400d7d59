package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"outpost.run/outpost/sandbox"
)

const (
	maxLayers      = 60        // the kernel takes so many names of layers in one mount option (256 bytes)
	maxConfigBytes = 8 << 20   // of an image's configuration
	pullTime       = time.Hour // of one image
)

// pull makes the image of a registry's reference. Errors: ImageNotFound, with the reason; NotSupported; Capacity.
func (s *Store) pull(ctx context.Context, r reference, credentials bool, step func(string, int64, int64)) (Image, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pullTime, errLong)
	defer cancel()
	ctx = withPace(ctx)
	step("resolve", 0, 0)
	img, err := remote.Image(r.remote, s.remoteOptions(ctx, credentials)...)
	scope := ""
	if credentials { // what is pulled with them is found again only for the same repository
		scope = r.remote.Context().Name()
	}
	var src source
	if err == nil {
		src, err = sourceOf(img)
	}
	var made Image
	if err == nil {
		made, err = s.convert(ctx, r, src, scope, credentials, step)
	}
	if err != nil {
		return Image{}, pullError(ctx, r, err)
	}
	return made, nil
}

var errLong = errors.New("it takes too long")

func (s *Store) remoteOptions(ctx context.Context, credentials bool) []remote.Option {
	o := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(s.transport), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}),
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	}
	if credentials {
		return append(o, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	return append(o, remote.WithAuth(authn.Anonymous))
}

// pullError says why an image can't be had.
func pullError(ctx context.Context, r reference, err error) error {
	if _, ok := errors.AsType[*sandbox.Error](err); ok {
		return err
	}
	reason := "its registry can't be asked now, or what it sends is not what it promised"
	var wrong *broken
	var dial *net.OpError
	var status *transport.Error
	switch {
	case errors.As(err, &wrong):
		reason = wrong.reason
	case errors.Is(context.Cause(ctx), errLong):
		reason = "to pull it takes more than an hour"
	case errors.Is(err, errSlow):
		reason = fmt.Sprintf("its registry sends less than %d KiB a second", slowest>>10)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errPrivate), errors.As(err, &dial) && dial.Op == "dial": // the same words, whichever names there are
		reason = "its registry can't be reached: it is not there, or at a private address that images.allow_private_registries does not list"
	case errors.As(err, &status) && slices.Contains([]int{http.StatusNotFound, http.StatusUnauthorized, http.StatusForbidden}, status.StatusCode):
		reason = hidden
	case errors.As(err, &status):
		reason = fmt.Sprintf("its registry answered %d", status.StatusCode)
	}
	return unavailable(r, err, reason)
}

// source is an image in the form of OCI or Docker: what its configuration says, and its layers, the lowest first.
type source struct {
	config v1.ConfigFile
	layers []sourceLayer
}

// sourceLayer is a tar, compressed or not.
type sourceLayer struct {
	size int64 // of the stream that open gives
	open func() (io.ReadCloser, error)
}

// sourceOf reads what is needed of an image before its layers.
func sourceOf(img v1.Image) (source, error) {
	m, err := img.Manifest()
	if err != nil {
		return source{}, err
	}
	if m.Config.Size > maxConfigBytes {
		return source{}, brokenf("its configuration is over %d MiB", maxConfigBytes>>20)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return source{}, err
	}
	layers, err := img.Layers()
	if err != nil {
		return source{}, err
	}
	src := source{config: *config}
	for i, l := range layers {
		src.layers = append(src.layers, sourceLayer{m.Layers[i].Size, l.Compressed})
	}
	return src, nil
}

// convert makes an image of a source: its layers, verified, one by one.
func (s *Store) convert(ctx context.Context, r reference, src source, scope string, private bool, step func(string, int64, int64)) (Image, error) {
	c := conversion{s: s, left: s.bounds, scope: scope, step: step, made: s.room.share()}
	defer c.made.end()
	for _, l := range src.layers {
		if c.total += l.size; l.size < 0 || c.total > c.left.Bytes {
			return Image{}, brokenf("its layers are over %d MiB, compressed", c.left.Bytes>>20)
		}
	}
	if len(src.layers) > maxLayers {
		return Image{}, sandbox.Errorf(sandbox.NotSupported, nil, "image %s has %d layers, and at most %d can be mounted: squash it", r, len(src.layers), maxLayers)
	}
	config := src.config
	if config.OS != "" && config.OS != "linux" || config.Architecture != "" && config.Architecture != runtime.GOARCH {
		return Image{}, brokenf("it is for %s/%s, and this host for linux/%s", config.OS, config.Architecture, runtime.GOARCH)
	}
	if len(src.layers) != len(config.RootFS.DiffIDs) || len(src.layers) == 0 {
		return Image{}, brokenf("it has %d layers, and its configuration tells of %d", len(src.layers), len(config.RootFS.DiffIDs))
	}
	for i, l := range src.layers {
		if err := c.layer(ctx, l, config.RootFS.DiffIDs[i]); err != nil {
			return Image{}, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return s.keep(r.String(), manifest{Layers: c.digests, Config: s.configOf(config.Config, c.digests), Private: private})
}

// conversion is an image that is being made of layers in the form of tar.
type conversion struct {
	s           *Store
	left        Bounds
	scope       string
	made        *share // of the layers that are done
	step        func(string, int64, int64)
	total, done int64
	chain       string // names the layers so far; OCI image specification, config.md, Layer ChainID
	digests     []string
}

func (c *conversion) layer(ctx context.Context, l sourceLayer, diffID v1.Hash) error {
	if diffID.Algorithm != "sha256" {
		return brokenf("a layer is named by %.20q, not by sha256", diffID.Algorithm)
	}
	chained := sha256.Sum256([]byte(c.chain + " " + diffID.String()))
	c.chain = hex.EncodeToString(chained[:])
	defer func() { c.done += l.size }()
	record := c.s.madePath("oci " + recipe + "\n" + c.scope + "\n" + c.chain)
	if digest, ok := c.s.recorded(record); ok {
		return c.add(digest)
	}
	compressed, err := l.open()
	if err != nil {
		return err
	}
	defer compressed.Close()
	began := c.done
	counted := &counting{compressed, func(n int64) { c.step("download", began+n, c.total) }, 0, l.size}
	plain, err := decompressed(counted)
	if err != nil {
		return err
	}
	defer plain.Close()
	h := sha256.New()
	of := layerOf{bounds: c.left, oci: true, verify: func() error { return verify(h, diffID) }}
	for _, d := range c.digests {
		of.below = append(of.below, c.s.layerPath(d))
	}
	digest, used, err := c.s.keepStream(ctx, record, io.TeeReader(plain, h), of, func(n int64) { c.step("write", n, 0) })
	if err != nil {
		return err
	}
	c.left.Bytes -= used.Bytes
	c.left.Files -= used.Files
	c.left.Meta -= used.Meta
	st, err := os.Stat(c.s.layerPath(digest))
	if err != nil {
		return err
	}
	if err := c.made.add(st.Size(), st.Size()); err != nil { // or an image of many layers fills the disk piece by piece
		return err
	}
	return c.add(digest)
}

// add puts a layer on those so far. overlayfs does not ask whether a root is opaque: what is below one is left out.
func (c *conversion) add(digest string) error {
	layer, err := openBelow([]string{c.s.layerPath(digest)})
	if err != nil {
		return err
	}
	defer layer.close()
	if root, ok := layer.lookup(""); ok && root.opaque {
		c.digests = nil
	}
	c.digests = append(c.digests, digest)
	return nil
}

func verify(h hash.Hash, want v1.Hash) error {
	if got := hex.EncodeToString(h.Sum(nil)); got != want.Hex {
		return brokenf("a layer is not what the image's configuration says")
	}
	return nil
}

// counting tells how far a stream is, and ends it where its size was promised smaller.
type counting struct {
	io.Reader
	tell    func(n int64)
	n, size int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if c.n += int64(n); c.n > c.size {
		return n, brokenf("a layer is larger than promised")
	}
	c.tell(c.n)
	return n, err
}
