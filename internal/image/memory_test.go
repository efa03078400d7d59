package image

import (
	"archive/tar"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"outpost.run/outpost/sandbox"
)

// heap is what is in use, less what nothing holds.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMetadataOfAStreamIsBounded(t *testing.T) {
	long := strings.Repeat("d", 250) + "/"
	for _, tc := range []struct {
		name    string
		entries int
		entry   func(i int, h *tar.Header)
		refused bool
	}{
		{"attributes as large as are kept", 9_000, func(_ int, h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 4000)}
		}, true},
		{"attributes larger than are kept", 9_000, func(_ int, h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 16_000)}
		}, false},
		{"long links", 9_000, func(_ int, h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, strings.Repeat("t", 4000) }, true},
		{"long names", 9_000, func(i int, h *tar.Header) { h.Name = strings.Repeat(long, 16)[:4000] + fmt.Sprint(i) }, true},
		{"many short names in a long place", 20_000, func(i int, h *tar.Header) { h.Name = strings.Repeat(long, 10) + fmt.Sprint(i) }, true},
		{"headers of much that is not kept", 150, func(_ int, h *tar.Header) {
			h.PAXRecords = map[string]string{"comment": strings.Repeat("c", 900_000), "SCHILY.xattr.user.x": "x"}
		}, false},
		{"links of headers of much that is not kept", 150, func(_ int, h *tar.Header) {
			h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeSymlink, strings.Repeat("t", 120), map[string]string{"comment": strings.Repeat("c", 900_000)}
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, w := io.Pipe()
			go func() {
				out := tar.NewWriter(w)
				for i := range tc.entries {
					h := &tar.Header{Name: strings.Repeat("n", 110) + fmt.Sprint(i), Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
					tc.entry(i, h)
					if err := out.WriteHeader(h); err != nil {
						w.CloseWithError(err)
						return
					}
				}
				w.CloseWithError(out.Close())
			}()
			before := heap()
			tr := tarReader{tree: newTree(Bounds{Bytes: 1 << 30, Files: 100_000, Meta: 32 << 20}, nil), spool: io.Discard}
			err := tr.read(t.Context(), r)
			r.CloseWithError(io.ErrClosedPipe)
			if _, refused := err.(*broken); refused != tc.refused || !refused && err != nil {
				t.Errorf("%v", err)
			}
			if grown := heap() - before; grown > 64<<20 {
				t.Errorf("the tree of %d entries holds %d MiB", tr.tree.entries, grown>>20)
			}
			runtime.KeepAlive(tr.tree)
		})
	}
}

func TestMetadataIsBoundedOverTheWholeImage(t *testing.T) {
	h := newHub(t, nil)
	layer := func(prefix string) []byte {
		var files []file
		for i := range 60 {
			files = append(files, file{name: fmt.Sprintf("%s%s%d", prefix, strings.Repeat("n", 200), i)})
		}
		return archive(t, files...)
	}
	s := h.store(t, Options{Bounds: Bounds{Bytes: 1 << 20, Files: 1000, Meta: 20 << 10}})
	if _, err := s.Ensure(t.Context(), h.push(t, "one", picture(t, v1.Config{}, layer("a"))), nil); err != nil {
		t.Errorf("one layer within the bounds: %v", err)
	}
	_, err := s.Ensure(t.Context(), h.push(t, "two", picture(t, v1.Config{}, layer("b"), layer("c"))), nil)
	if sandbox.CodeOf(err) != sandbox.ImageNotFound || !strings.Contains(err.Error(), "names, link targets and attributes") {
		t.Errorf("two that are over them together: %v", err)
	}
}
