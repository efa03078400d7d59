package image

import (
	"context"
	"io"
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
	panic("not yet")
}

// Made tells the layer that is kept under key, and counts as a use of it.
func (s *Store) Made(key string) (layerPath string, ok bool) {
	digest, ok := s.made(key)
	return s.layerPath(digest), ok
}
