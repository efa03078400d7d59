package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"outpost.run/outpost/sandbox"
)

// file is one entry of a tar, in few words.
type file struct {
	name, text string
	header     func(*tar.Header)
}

func of(kind byte, target string) func(*tar.Header) {
	return func(h *tar.Header) { h.Typeflag, h.Linkname = kind, target }
}

func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0), Format: tar.FormatPAX}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if f.header != nil {
			f.header(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func emptyStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// listing is a layer in text, a line an entry.
func listing(t testing.TB, layer string) string {
	t.Helper()
	f, err := os.Open(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := fs.Lstat(tree, p)
		if err != nil {
			return err
		}
		e := entryOf(tree, p, info)
		fmt.Fprintf(&b, "%s %o %d:%d", p, uint32(e.mode.Perm())|uint32(e.mode&fs.ModeSticky)>>11, e.uid, e.gid)
		switch e.kind {
		case regular:
			text, err := fs.ReadFile(tree, p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %.40q", text)
		case symlink:
			fmt.Fprintf(&b, " -> %s", e.target)
		case whiteout:
			b.WriteString(" gone")
		case fifo:
			b.WriteString(" fifo")
		}
		if e.opaque {
			b.WriteString(" opaque")
		}
		st := info.Sys().(*erofs.Stat)
		for _, k := range sortedKeys(st.Xattrs) {
			if k != opaqueAttr {
				fmt.Fprintf(&b, " %s=%s", k, st.Xattrs[k])
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var roomy = Bounds{Bytes: 1 << 20, Files: 100, Meta: 64 << 10}

func TestKeepTarKeepsWhatMayBeKept(t *testing.T) {
	xattrs := func(h *tar.Header) {
		h.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "x", "SCHILY.xattr.security.capability": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc",
			"SCHILY.xattr.user.overlay.opaque": "y"}
	}
	for _, tc := range []struct {
		name  string
		files []file
		want  string
	}{
		{"nothing", nil, ""},
		{"files and directories", []file{{name: "a/", header: func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o1777, 7, 8 }}, {name: "a/b", text: "x"}}, "a 1777 7:8\na/b 644 0:0 \"x\"\n"},
		{"a directory told of after its files", []file{{name: "a/b", text: "x"}, {name: "a/", header: func(h *tar.Header) { h.Mode = 0o700 }}}, "a 700 0:0\na/b 644 0:0 \"x\"\n"},
		{"the last of a name", []file{{name: "a", text: "1"}, {name: "./a", text: "2"}}, "a 644 0:0 \"2\"\n"},
		{"a file in a directory's place and back", []file{{name: "a/b", text: "1"}, {name: "a", text: "2"}, {name: "a/c", text: "3"}}, "a 755 0:0\na/c 644 0:0 \"3\"\n"},
		{"an absolute name", []file{{name: "/etc/passwd", text: "x"}}, "etc 755 0:0\netc/passwd 644 0:0 \"x\"\n"},
		{"links", []file{{name: "f", text: "x"}, {name: "s", header: of(tar.TypeSymlink, "../../f")}, {name: "h", header: of(tar.TypeLink, "/f")}}, "f 644 0:0 \"x\"\nh 644 0:0 \"x\"\ns 777 0:0 -> ../../f\n"},
		{"a hard link to a symbolic one", []file{{name: "s", header: of(tar.TypeSymlink, "f")}, {name: "h", header: of(tar.TypeLink, "s")}}, "h 777 0:0 -> f\ns 777 0:0 -> f\n"},
		{"a name behind a link stays inside", []file{{name: "l", header: of(tar.TypeSymlink, "../../../../etc")}, {name: "l/passwd", text: "x"}}, "etc 755 0:0\netc/passwd 644 0:0 \"x\"\nl 777 0:0 -> ../../../../etc\n"},
		{"a name behind an absolute link stays inside", []file{{name: "d/l", header: of(tar.TypeSymlink, "/proc/self")}, {name: "d/l/x", text: "x"}}, "d 755 0:0\nd/l 777 0:0 -> /proc/self\nproc 755 0:0\nproc/self 755 0:0\nproc/self/x 644 0:0 \"x\"\n"},
		{"set-id bits go", []file{{name: "su", header: func(h *tar.Header) { h.Mode = 0o6755 }}}, "su 755 0:0 \"\"\n"},
		{"devices go, a fifo stays", []file{{name: "sda", header: func(h *tar.Header) { h.Typeflag, h.Devmajor = tar.TypeBlock, 8 }},
			{name: "mem", header: func(h *tar.Header) { h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 1 }}, {name: "p", header: of(tar.TypeFifo, "")}}, "p 644 0:0 fifo\n"},
		{"ids that no machine has", []file{{name: "f", header: func(h *tar.Header) { h.Uid, h.Gid = 65536, 1<<30 }}}, "f 644 65534:65534 \"\"\n"},
		{"attributes that only the user reads", []file{{name: "f", header: xattrs}}, "f 644 0:0 \"\" user.note=x\n"},
		{"what takes away in a registry's layer", []file{{name: ".wh.f"}}, ".wh.f 644 0:0 \"\"\n"},
		{"a time before time", []file{{name: "f", header: func(h *tar.Header) { h.ModTime = time.Unix(-1, 0) }}}, "f 644 0:0 \"\"\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := emptyStore(t)
			path, err := s.KeepTar(t.Context(), "k", bytes.NewReader(archive(t, tc.files...)), roomy)
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, path); got != ". 755 0:0\n"+tc.want {
				t.Errorf("the layer has\n%swant\n%s", got, tc.want)
			}
			if again, ok := s.Made("k"); !ok || again != path {
				t.Errorf("Made = %q, %v", again, ok)
			}
		})
	}
}

func TestKeepTarRefuses(t *testing.T) {
	deep := strings.Repeat("d/", 300)
	good := archive(t, file{name: "f", text: strings.Repeat("x", 4096)})
	var many []file
	for i := range 101 {
		many = append(many, file{name: fmt.Sprint(i)})
	}
	for name, stream := range map[string][]byte{
		"a way out":             archive(t, file{name: "a/../../etc/passwd"}),
		"a link's way out":      archive(t, file{name: "h", header: of(tar.TypeLink, "../../etc/shadow")}),
		"a link to nothing":     archive(t, file{name: "h", header: of(tar.TypeLink, "etc/shadow")}),
		"a link to a directory": archive(t, file{name: "d/"}, file{name: "h", header: of(tar.TypeLink, "d")}),
		"an endless way":        archive(t, file{name: "a", header: of(tar.TypeSymlink, "b")}, file{name: "b", header: of(tar.TypeSymlink, "a")}, file{name: "a/f"}),
		"a way that grows":      archive(t, file{name: "a", header: of(tar.TypeSymlink, "a/a")}, file{name: "a/f"}),
		"a deep place":          archive(t, file{name: deep + "f"}),
		"a long name":           archive(t, file{name: strings.Repeat("n", 256)}),
		"too many files":        archive(t, many...),
		"too many directories":  archive(t, file{name: strings.Repeat("d/", 120) + "f"}),
		"too much content":      archive(t, file{name: "f", text: strings.Repeat("x", 1<<20+1)}),
		"too many links":        archive(t, append([]file{{name: "f", text: strings.Repeat("x", 1<<19)}}, []file{{name: "1", header: of(tar.TypeLink, "f")}, {name: "2", header: of(tar.TypeLink, "f")}, {name: "3", header: of(tar.TypeLink, "f")}}...)...),
		"an end too early":      good[:2000],
		"no tar":                bytes.Repeat([]byte("no tar "), 1000),
		"endless zeros":         make([]byte, 4<<20),
	} {
		t.Run(name, func(t *testing.T) {
			s := emptyStore(t)
			path, err := s.KeepTar(t.Context(), "k", bytes.NewReader(stream), roomy)
			if sandbox.CodeOf(err) != sandbox.Invalid {
				t.Errorf("KeepTar = %q, %v", path, err)
			}
			if _, ok := s.Made("k"); ok {
				t.Error("it is kept all the same")
			}
			for _, d := range []string{"tmp", "layers", "kept"} {
				if left, err := os.ReadDir(s.dir + "/" + d); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v, %v", d, left, err)
				}
			}
		})
	}
}

// huge is a tar that says it has a file of a terabyte.
func TestKeepTarBelievesNoSize(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "f", Size: 1 << 40, Typeflag: tar.TypeReg, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	s := emptyStore(t)
	if _, err := s.KeepTar(t.Context(), "k", io.MultiReader(&b, endless{}), Bounds{1 << 30, 10, 1 << 20}); sandbox.CodeOf(err) != sandbox.Invalid {
		t.Error(err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestKeepTarEndsWithItsContext(t *testing.T) {
	s := emptyStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(archive(t, file{name: "f"})[:512])
		cancel()
		_, _ = w.Write(make([]byte, 512))
	}()
	if _, err := s.KeepTar(ctx, "k", r, roomy); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	r.Close()
}

func TestKeptLayersOfEqualTreesAreOneAndGoWhenUnused(t *testing.T) {
	s := emptyStore(t)
	one := archive(t, file{name: "a"}, file{name: "b", text: "x"})
	other := archive(t, file{name: "b", text: "x"}, file{name: "a"})
	keep := func(key string, b []byte) string {
		path, err := s.KeepTar(t.Context(), key, bytes.NewReader(b), roomy)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	a, b, c := keep("a", one), keep("b", other), keep("c", archive(t, file{name: "c"}))
	if a != b || a == c {
		t.Errorf("%s, %s, %s", a, b, c)
	}
	old := time.Now().Add(-time.Hour)
	for _, key := range []string{"a", "b"} {
		if err := os.Chtimes(s.keptPath(key), old, old); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(st.Size(), Spare{Layer: func(path string) bool { return path == a }}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a); err != nil {
		t.Errorf("a layer in use: %v", err)
	}
	path := keep("c", archive(t, file{name: "c"}))
	if _, err := s.Prune(st.Size(), Spare{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a layer that nobody uses: %v", err)
	}
	if again, ok := s.Made("c"); !ok || again != path {
		t.Errorf("the layer used last went: %q, %v", again, ok)
	}
}
