package deps

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"outpost.run/outpost/internal/image"
)

// TestHowLongASetIsKept: an exact one for good, another for a while, and none without its layer.
func TestHowLongASetIsKept(t *testing.T) {
	store, err := image.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	in, err := New(Options{Layers: store, Dir: filepath.Join(t.TempDir(), "deps")})
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.KeepTar(t.Context(), "deps-1", &layer, bounds); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"deps-1", "deps-2"} {
		if err := in.keep(Set{Key: key, Resolved: []string{"six==1"}}); err != nil {
			t.Fatal(err)
		}
	}
	if set, ok := in.kept("deps-1", false); !ok || set.Resolved[0] != "six==1" || set.Layer == "" {
		t.Errorf("a fresh one: %+v, %v", set, ok)
	}
	if set, ok := in.kept("deps-2", true); ok {
		t.Errorf("one without a layer: %+v", set)
	}
	old, err := json.Marshal(note{Set: Set{Key: "deps-1"}, InstalledAt: time.Now().Add(-freshFor - time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in.notePath("deps-1"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := in.kept("deps-1", false); ok {
		t.Error("one that is not exact is kept beyond its time")
	}
	if _, ok := in.kept("deps-1", true); !ok {
		t.Error("an exact one is not kept for good")
	}
}

func TestNotesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		path := filepath.Join(dir, fmt.Sprintf("deps-%02d.json", i))
		at := time.Now().Add(time.Duration(i-100) * time.Second)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	dropNotes(dir, 30)
	dropNotes(dir, 20)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 18 || filepath.Base(left[0]) != "deps-12.json" {
		t.Errorf("%q, %v", left, err)
	}
}
