package image

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"outpost.run/outpost/sandbox"
)

// Bounds are what a layer from a stream may come to; over them KeepTar gives up at once.
type Bounds struct {
	Bytes int64 // of all files' content, links counted as copies
	Files int   // entries, directories that are only implied included
}

// KeepTar turns a tar stream, every entry of which may be hostile, into a layer that is kept under key for Made, and
// answers the layer's file. The layer's name is its content's sum: equal trees are kept once.
//
// Errors: ImageNotFound, the stream is no tar, or its entries make no tree or go over the bounds; Internal; ctx's.
func (s *Store) KeepTar(ctx context.Context, key string, tar io.Reader, b Bounds) (layerPath string, err error) {
	dir, err := s.tempDir()
	if err != nil {
		return "", err
	}
	defer func() { _ = s.removeTemp(dir) }()
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "tar", "-x", "-C", tree, "--no-same-owner")
	cmd.Stdin = tar
	if err := cmd.Run(); err != nil {
		return "", sandbox.Errorf(sandbox.ImageNotFound, err, "no tar")
	}
	out, err := os.CreateTemp(dir, "layer")
	if err != nil {
		return "", err
	}
	defer out.Close()
	if err := writeLayer(tree, out, time.Unix(1, 0), func(int64) {}); err != nil {
		return "", err
	}
	digest, err := s.keepLayer(key, out)
	return s.layerPath(digest), err
}

// Made tells the layer that is kept under key, and counts as a use of it.
func (s *Store) Made(key string) (layerPath string, ok bool) {
	digest, ok := s.made(key)
	return s.layerPath(digest), ok
}
