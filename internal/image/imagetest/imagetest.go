// Package imagetest gives tests the default images, made once a machine.
package imagetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outpost.run/outpost/internal/image"
)

// The default images.
const (
	Bash   = "deb:trixie"
	Python = "deb:trixie?include=python3"
	Node   = "deb:trixie?include=nodejs"
	Go     = "deb:trixie?include=golang-go"
	Rust   = "deb:trixie?include=rustc"
)

// Dir is the image store that tests share; OUTPOST_TEST_IMAGES names another.
func Dir() string {
	if dir := os.Getenv("OUTPOST_TEST_IMAGES"); dir != "" {
		return dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/tmp"
	}
	return filepath.Join(cache, "outpost-test", "images")
}

// Layers are the layers of an image; where OUTPOST_TEST_LAYERS lists files (a guest that can't build any), those.
func Layers(t testing.TB, ref string) []string {
	t.Helper()
	if list := os.Getenv("OUTPOST_TEST_LAYERS"); list != "" {
		return strings.Split(list, ":")
	}
	store, err := image.Open(Dir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	img, err := store.Ensure(t.Context(), ref, func(p image.Progress) { t.Logf("image %s: %s %d/%d", p.Ref, p.Phase, p.Done, p.Total) })
	if err != nil {
		t.Fatal(err)
	}
	return img.Layers
}
