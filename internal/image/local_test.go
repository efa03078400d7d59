package image

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	layouts "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"outpost.run/outpost/sandbox"
)

// pack writes a folder as a tar.
func pack(t testing.TB, dir, to string) {
	t.Helper()
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// lying puts one image into a folder in all forms.
func lying(t testing.TB) (dir string, img v1.Image) {
	t.Helper()
	dir = t.TempDir()
	img = picture(t, v1.Config{User: "7", WorkingDir: "/w"}, archive(t, file{name: "bin/sh", text: "sh"}), archive(t, file{name: "f", text: "f"}))
	l, err := layouts.Write(filepath.Join(dir, "layout"), empty.Index)
	must(t, err, l.AppendImage(img))
	pack(t, filepath.Join(dir, "layout"), filepath.Join(dir, "layout.tar"))
	tag, err := name.NewTag("example/app:1")
	must(t, err, tarball.WriteToFile(filepath.Join(dir, "saved.tar"), tag, img))
	root := filepath.Join(dir, "root")
	must(t, os.MkdirAll(filepath.Join(root, "bin"), 0o755), os.WriteFile(filepath.Join(root, "bin/sh"), []byte("sh"), 0o755), os.Symlink("../../../../etc/passwd", filepath.Join(root, "l")))
	return dir, img
}

func TestImagesThatLieBelowARoot(t *testing.T) {
	dir, _ := lying(t)
	s, err := OpenWith(t.TempDir(), Options{LocalRoots: []string{"/nowhere", dir}})
	must(t, err)
	defer s.Close()
	digest := ""
	for _, form := range []string{"oci:" + dir + "/layout", "oci-archive:" + dir + "/layout.tar", "docker-archive:" + dir + "/saved.tar"} {
		img, err := s.EnsureFor(t.Context(), Asker{Operator: true}, form, nil)
		if err != nil || len(img.Layers) != 2 || img.Config.User != "7" || img.Config.WorkingDir != "/w" || digest != "" && img.Digest != digest {
			t.Errorf("%s: %+v, %v", form, img, err)
		}
		digest = img.Digest
	}
	img, err := s.EnsureFor(t.Context(), Asker{Operator: true}, "dir:"+dir+"/root", nil)
	must(t, err)
	if got := listing(t, img.Layers[0]); !strings.Contains(got, "bin/sh 755 0:0 \"sh\"\n") || !strings.Contains(got, "l 777 0:0 -> ../../../../etc/passwd\n") {
		t.Errorf("the folder's layer has\n%s", got)
	}
	for _, form := range []string{"oci:" + dir + "/layout", "dir:" + dir + "/root", "deb:trixie"} {
		if _, err := s.EnsureFor(t.Context(), Asker{Namespace: "acme"}, form, nil); sandbox.CodeOf(err) != sandbox.Invalid {
			t.Errorf("%s for one who is no operator: %v", form, err)
		}
	}
}

func TestLayersOfALocalImageAreNobodysByTheirNames(t *testing.T) {
	dir, img := lying(t)
	h := newHub(t, nil)
	ref := h.push(t, "stolen", img) // its manifest and configuration tell of the layers, and its registry has them not
	h.answer(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		if bytes.HasPrefix(content, []byte("{")) {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	s := h.store(t, Options{LocalRoots: []string{dir}})
	if _, err := s.EnsureFor(t.Context(), Asker{Operator: true}, "oci:"+dir+"/layout", nil); err != nil {
		t.Fatal(err)
	}
	if img, err := s.EnsureFor(t.Context(), Asker{Namespace: "acme"}, ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
		t.Errorf("%v, %v", img, err)
	}
}

func TestNoImageLiesOutsideTheRoots(t *testing.T) {
	outside, img := lying(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	must(t, os.MkdirAll(root, 0o755), os.Symlink(outside+"/layout", root+"/layout"), os.Symlink(outside+"/layout.tar", root+"/layout.tar"),
		os.Symlink(outside+"/saved.tar", root+"/saved.tar"), os.Symlink(outside+"/root", root+"/root"), os.Symlink("..", root+"/up"))
	pack(t, outside+"/layout", filepath.Join(dir, "beside.tar"))
	// A layout whose files are links out of the root.
	l, err := layouts.Write(root+"/links", empty.Index)
	must(t, err, l.AppendImage(img))
	manifest, err := img.Manifest()
	must(t, err)
	config := "blobs/sha256/" + manifest.Config.Digest.Hex
	must(t, os.Remove(filepath.Join(root, "links", config)), os.Symlink(filepath.Join(outside, "layout", config), filepath.Join(root, "links", config)))
	must(t, os.Mkdir(root+"/index", 0o755), os.Symlink("/etc/passwd", root+"/index/index.json"))
	must(t, os.WriteFile(root+"/empty.tar", nil, 0o600), os.WriteFile(root+"/text.tar", []byte(strings.Repeat("no tar ", 1000)), 0o600))
	s, err := OpenWith(t.TempDir(), Options{LocalRoots: []string{root}})
	must(t, err)
	defer s.Close()
	for _, ref := range []string{
		"oci:" + root + "/layout", "oci-archive:" + root + "/layout.tar", "docker-archive:" + root + "/saved.tar", "dir:" + root + "/root", "oci:" + root + "/up/root/layout",
		"oci-archive:" + root + "/../beside.tar", "oci-archive:" + root + "/up/beside.tar", "dir:" + root + "/up", "dir:/etc", "oci:" + root + "/links", "oci:" + root + "/index",
		"oci-archive:" + root + "/empty.tar", "oci-archive:" + root + "/text.tar", "docker-archive:" + root + "/text.tar", "oci:" + root + "/nothing", "docker-archive:" + root,
		"oci-archive:/dev/zero", "dir:" + outside + "/root", "dir:" + root + "-not",
	} {
		img, err := s.EnsureFor(t.Context(), Asker{Operator: true}, ref, nil)
		if sandbox.CodeOf(err) != sandbox.ImageNotFound {
			t.Errorf("%s: %+v, %v", ref, img, err)
		}
		if err != nil && strings.Contains(err.Error(), "root:x:") {
			t.Errorf("%s tells what is outside: %v", ref, err)
		}
	}
	if left, err := fs.Glob(os.DirFS(s.dir), "layers/*"); err != nil || len(left) > 0 {
		t.Errorf("layers: %v, %v", left, err)
	}
}

func TestPinnedLayersStay(t *testing.T) {
	dir, _ := lying(t)
	s, err := OpenWith(t.TempDir(), Options{LocalRoots: []string{dir}})
	must(t, err)
	ref := "oci:" + dir + "/layout"
	img, err := s.Ensure(t.Context(), ref, nil)
	must(t, err, s.Pin("sb_1", img), s.Remove(ref))
	if _, err := s.Prune(0, Spare{}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	later, err := Open(s.dir)
	must(t, err)
	defer later.Close()
	again, ok := later.ByDigest(img.Digest)
	if !ok || strings.Join(again.Layers, " ") != strings.Join(img.Layers, " ") || again.Config.User != "7" {
		t.Errorf("ByDigest = %+v, %v, want %+v", again, ok, img)
	}
	if owners, err := later.Pinned(); err != nil || len(owners) != 1 || owners[0] != "sb_1" {
		t.Errorf("Pinned = %v, %v", owners, err)
	}
	must(t, later.Unpin("sb_1"), later.Unpin("sb_1"))
	if _, err := later.Prune(0, Spare{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := later.ByDigest(img.Digest); ok {
		t.Error("it is there after it was let go of")
	}
	if err := later.Pin("sb_2", img); sandbox.CodeOf(err) != sandbox.ImageNotFound {
		t.Errorf("pinned what is gone: %v", err)
	}
}
