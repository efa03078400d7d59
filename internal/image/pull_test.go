package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"outpost.run/outpost/sandbox"
)

func TestPullMakesWhatTheLayersSay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an overlay needs root")
	}
	h := newHub(t, nil)
	s := h.store(t, Options{})
	dir := func(mode int64, uid int) func(*tar.Header) {
		return func(h *tar.Header) { h.Mode, h.Uid, h.Gid = mode, uid, uid }
	}
	img := picture(t, v1.Config{User: "app", Env: []string{"A=1=2", "noequals", "PATH=/x:/bin"}, WorkingDir: "/srv/app"},
		archive(t,
			file{name: "usr/lib/old", text: "old"}, file{name: "lib", header: of(tar.TypeSymlink, "usr/lib")}, file{name: "bin/", header: dir(0o755, 0)},
			file{name: "tmp/", header: dir(0o1777, 0)}, file{name: "home/app/", header: dir(0o700, 1234)}, file{name: "home/app/a", text: "a"},
			file{name: "cache/x/y", text: "y"}, file{name: "gone", text: "gone"}, file{name: "dir/f", text: "f"}, file{name: "turn/f", text: "f"},
			file{name: "etc/passwd", text: "app:x:1234:1234::/home/app:/bin/sh\n"}),
		archive(t,
			file{name: "tmp/new", text: "new"}, file{name: "home/app/b", text: "b"}, // their directories are implied
			file{name: "lib/new", text: "through the link"},
			file{name: "cache/.wh..wh..opq"}, file{name: "cache/z", text: "z"}, file{name: ".wh.gone"}, file{name: "dir/.wh.f"}, file{name: ".wh.nothing"},
			file{name: ".wh.turn"}, file{name: "turn/g", text: "g"}, file{name: "h", text: "h"}, file{name: "i", header: of(tar.TypeLink, "h")}))
	got, err := s.Ensure(t.Context(), h.push(t, "team/app:1", img), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Layers) != 2 || got.Config.User != "app" || got.Config.WorkingDir != "/srv/app" || fmt.Sprint(got.Config.Env) != "[[A 1=2] [PATH /x:/bin]]" || !got.Config.NoSandbox {
		t.Errorf("%+v", got)
	}
	seen := shown(t, got.Layers)
	want := `bin 755 0 
cache 755 0 
cache/z 644 0 z
dir 755 0 
etc 755 0 
etc/passwd 644 0 app:x:1234:1234::/home/app:/bin/sh

h 644 0 h
home 755 0 
home/app 700 1234 
home/app/a 644 0 a
home/app/b 644 0 b
i 644 0 h
lib 777 0 usr/lib
tmp 1777 0 
tmp/new 644 0 new
turn 755 0 
turn/g 644 0 g
usr 755 0 
usr/lib 755 0 
usr/lib/new 644 0 through the link
usr/lib/old 644 0 old
`
	if seen != want {
		t.Errorf("the layers show\n%s", seen)
	}
}

func TestOpaqueRootHidesAllThatIsBelow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an overlay needs root")
	}
	h := newHub(t, nil)
	s := h.store(t, Options{})
	for name, layer := range map[string][]file{
		"alone":                   {{name: ".wh..wh..opq"}, {name: "new", text: "new"}},
		"before the root's entry": {{name: ".wh..wh..opq"}, {name: "./"}, {name: "new", text: "new"}},
		"after the root's entry":  {{name: "./"}, {name: "new", text: "new"}, {name: ".wh..wh..opq"}},
	} {
		ref := h.push(t, strings.Fields(name)[0]+":1", picture(t, v1.Config{}, archive(t, file{name: "old", text: "old"}, file{name: "dir/old", text: "old"}),
			archive(t, layer...), archive(t, file{name: "dir/top", text: "top"})))
		for range 2 { // the second time of layers that are there
			got, err := s.Refresh(t.Context(), ref, nil)
			if err != nil {
				t.Fatal(err)
			}
			if seen := shown(t, got.Layers); seen != "dir 755 0 \ndir/top 644 0 top\nnew 644 0 new\n" {
				t.Errorf("%s: the layers show\n%s", name, seen)
			}
		}
	}
}

// shown is what layers show as one root, a line an entry.
func shown(t *testing.T, layers []string) string {
	t.Helper()
	var seen strings.Builder
	err := inWorkshop(func(w *workshop) error {
		at, err := os.MkdirTemp("", "view-")
		if err != nil {
			return err
		}
		defer os.Remove(at)
		if err := w.mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
			return err
		}
		var lowers []string
		for i, layer := range layers {
			d := filepath.Join(at, fmt.Sprint(i))
			if err := os.Mkdir(d, 0o700); err != nil {
				return err
			}
			if err := w.mountLayer(layer, d); err != nil {
				return err
			}
			lowers = append([]string{d}, lowers...)
		}
		view := filepath.Join(at, "view")
		if err := os.Mkdir(view, 0o700); err != nil {
			return err
		}
		if err := w.mount("overlay", view, "overlay", 0, "lowerdir="+strings.Join(lowers, ":")); err != nil {
			return err
		}
		root, err := os.OpenRoot(view)
		if err != nil {
			return err
		}
		defer root.Close()
		return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || name == "." {
				return err
			}
			info, err := root.Lstat(name)
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			text := ""
			if target, err := root.Readlink(name); err == nil {
				text = target
			} else if b, err := root.ReadFile(name); err == nil {
				text = string(b)
			}
			fmt.Fprintf(&seen, "%s %o %d %s\n", name, st.Mode&0o7777, st.Uid, text)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen.String()
}

// small is an image of one layer whose content gzip can't make small.
func small(t testing.TB, seed string) v1.Image {
	t.Helper()
	var text strings.Builder
	for i := 0; text.Len() < 300_000; i++ {
		text.WriteString(hashed(fmt.Sprint(seed, i)))
	}
	return picture(t, v1.Config{}, archive(t, file{name: "f", text: text.String()}))
}

func TestPullGoesOnWhereItWasCutOff(t *testing.T) {
	patient(t)
	for name, cut := range map[string]func(w http.ResponseWriter, r *http.Request, rest []byte){
		"a connection that ends": func(w http.ResponseWriter, _ *http.Request, rest []byte) {
			_, _ = w.Write(rest[:min(len(rest), 40_000)])
			if len(rest) > 40_000 {
				panic(http.ErrAbortHandler)
			}
		},
		"a connection that hangs": func(w http.ResponseWriter, r *http.Request, rest []byte) {
			_, _ = w.Write(rest[:min(len(rest), 80_000)])
			if len(rest) > 80_000 {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, nil)
			ref := h.push(t, "a", small(t, name))
			var ranges []string
			h.answer(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
				from := 0
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
					ranges = append(ranges, r.Header.Get("Range"))
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
				if from > 0 {
					w.WriteHeader(http.StatusPartialContent)
				}
				cut(w, r, content[from:])
				return true
			})
			img, err := h.store(t, Options{}).Ensure(t.Context(), ref, nil)
			if err != nil || len(img.Layers) != 1 || len(ranges) < 2 {
				t.Errorf("%v, %v, after asking for %q", img, err, ranges)
			}
		})
	}
}

func TestPullRefusesWhatIsNotWhatItSays(t *testing.T) {
	patient(t)
	was := retries
	retries = 1
	t.Cleanup(func() { retries = was })
	flipped := func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
		if len(content) > 10_000 {
			content = bytes.Clone(content)
			content[len(content)/2] ^= 1
		}
		_, _ = w.Write(content)
		return true
	}
	short := func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
		_, _ = w.Write(content[:len(content)/2])
		return true
	}
	bomb := func() []byte { // 64 MiB of zeros in 64 KiB
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		_ = w.WriteHeader(&tar.Header{Name: "f", Size: 64 << 20, Typeflag: tar.TypeReg})
		_, _ = io.CopyN(w, endlessZeros{}, 64<<20)
		_ = z.Close()
		return b.Bytes()
	}
	layerOf := func(b []byte, kind types.MediaType) v1.Image {
		img, err := mutate.AppendLayers(empty.Image, static.NewLayer(b, kind))
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	other := func() v1.Image { // its configuration tells of another layer
		img := small(t, "a")
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		c = c.DeepCopy()
		c.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
		return &withConfig{img, c}
	}
	elsewhere, err := mutate.ConfigFile(small(t, "b"), &v1.ConfigFile{OS: "linux", Architecture: "vax", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		img    v1.Image
		answer func(http.ResponseWriter, *http.Request, []byte) bool
		says   string
	}{
		"a flipped bit":            {small(t, "c"), flipped, ""},
		"less than was promised":   {small(t, "e"), short, ""},
		"another layer":            {other(), nil, "not what the image's configuration says"},
		"another machine":          {elsewhere, nil, "linux/vax"},
		"a bomb":                   {layerOf(bomb(), types.DockerLayer), nil, "together"},
		"no tar":                   {layerOf([]byte("no tar at all"), types.OCIUncompressedLayer), nil, "no tar"},
		"no gzip":                  {layerOf([]byte{0x1f, 0x8b, 0, 0, 0}, types.DockerLayer), nil, ""},
		"a way out":                {picture(t, v1.Config{}, archive(t, file{name: "../../etc/cron.d/x"})), nil, "leaves the layer"},
		"nothing":                  {empty.Image, nil, "0 layers"},
		"a whiteout of the parent": {picture(t, v1.Config{}, archive(t, file{name: ".wh..."})), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, nil)
			ref := h.push(t, "a", tc.img)
			h.answer(tc.answer)
			s := h.store(t, Options{Bounds: Bounds{Bytes: 8 << 20, Files: 1000, Meta: 1 << 20}})
			img, err := s.Ensure(t.Context(), ref, nil)
			if sandbox.CodeOf(err) != sandbox.ImageNotFound || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, %v", img, err)
			}
			for _, d := range []string{"tmp", "layers", "made", "refs"} {
				if left, err := os.ReadDir(filepath.Join(s.dir, d)); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v, %v", d, left, err)
				}
			}
		})
	}
}

type endlessZeros struct{}

func (endlessZeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// withConfig is an image with a configuration that does not fit.
type withConfig struct {
	v1.Image
	config *v1.ConfigFile
}

func (w *withConfig) RawConfigFile() ([]byte, error)      { return json.Marshal(w.config) }
func (w *withConfig) ConfigFile() (*v1.ConfigFile, error) { return w.config, nil }
func (w *withConfig) ConfigName() (v1.Hash, error) {
	b, _ := w.RawConfigFile()
	h, _, err := v1.SHA256(bytes.NewReader(b))
	return h, err
}
func (w *withConfig) RawManifest() ([]byte, error) {
	m, err := w.Manifest()
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}
func (w *withConfig) Digest() (v1.Hash, error) {
	b, _ := w.RawManifest()
	h, _, err := v1.SHA256(bytes.NewReader(b))
	return h, err
}
func (w *withConfig) Size() (int64, error) { b, err := w.RawManifest(); return int64(len(b)), err }
func (w *withConfig) Manifest() (*v1.Manifest, error) {
	m, err := w.Image.Manifest()
	if err != nil {
		return nil, err
	}
	m = m.DeepCopy()
	b, _ := w.RawConfigFile()
	m.Config.Size = int64(len(b))
	m.Config.Digest, err = w.ConfigName()
	return m, err
}

func TestPullAsksNoPrivateAddress(t *testing.T) {
	h, inner := newHub(t, nil), newHub(t, nil)
	ref := h.push(t, "a", small(t, "a"))
	hidden := inner.push(t, "a", small(t, "b"))
	s := h.store(t, Options{})
	for _, tc := range []struct{ name, ref string }{
		{"a registry that is not listed", hidden},
		{"by another name", strings.Replace(hidden, "127.0.0.1", "localhost", 1)},
		{"in IPv6", strings.Replace(hidden, "127.0.0.1", "[::ffff:127.0.0.1]", 1)},
	} {
		if _, err := s.Ensure(t.Context(), tc.ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if _, err := s.Ensure(t.Context(), hidden, nil); !strings.Contains(fmt.Sprint(err), "images.allow_private_registries") {
		t.Errorf("it does not say what mends it: %v", err)
	}
	h.answer(func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		http.Redirect(w, r, inner.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	inner.asked()
	if _, err := s.Ensure(t.Context(), ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
		t.Errorf("sent on: %v", err)
	}
	if asked := inner.asked(); len(asked) > 0 {
		t.Errorf("the private registry was asked for %q", asked)
	}
	listed, err := OpenWith(t.TempDir(), Options{PrivateRegistries: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer listed.Close()
	if _, err := listed.Ensure(t.Context(), hidden, nil); err != nil {
		t.Errorf("listed by its host alone: %v", err)
	}
}

func TestRegistriesAreAtPublicAddressesThatAreNotOurs(t *testing.T) {
	own := func() ([]net.Addr, error) {
		mine, err := net.InterfaceAddrs()
		for _, s := range []string{"8.8.4.4/32", "2606:4700::2/64"} {
			ip, of, _ := net.ParseCIDR(s)
			mine = append(mine, &net.IPNet{IP: ip, Mask: of.Mask})
		}
		return mine, err
	}
	g := guard{own: own}
	for address, want := range map[string]bool{
		"8.8.8.8": true, "::ffff:8.8.8.8": true, "2606:4700::1": true, "127.0.0.1": false, "10.1.2.3": false, "::ffff:10.0.0.1": false, "169.254.169.254": false,
		"168.63.129.16": false, "2001:67c:2960:6464::a00:1": false, "2606:4700::5efe:a00:1": false, "fe80::1%lo": false,
		"8.8.4.4": false, "::ffff:8.8.4.4": false, "2606:4700::2": false, // the host's own
	} {
		if err := g.judge(netip.MustParseAddr(address)); (err == nil) != want || err != nil && !errors.Is(err, errPrivate) {
			t.Errorf("%s: %v", address, err)
		}
	}
	g.own = func() ([]net.Addr, error) { return nil, errors.New("not told") }
	if g.judge(netip.MustParseAddr("8.8.8.8")) == nil {
		t.Error("the host's own addresses are not known, and it is let through")
	}
}

func TestPrivateImagesAreForThoseTheyAreGrantedTo(t *testing.T) {
	const user, password = "robot", "secret"
	h := newHub(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, p, _ := r.BasicAuth()
			if strings.Contains(r.URL.Path, "/open/") || r.URL.Path == "/v2/" && u == "" {
				if u != "" {
					t.Errorf("credentials were sent for %s", r.URL.Path)
				}
			} else if u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	config := fmt.Sprintf(`{"auths": {%q: {"username": %q, "password": %q}}}`, h.host, user, password)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	img := small(t, "private")
	ref := h.push(t, "team/app:1", img, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	s := h.store(t, Options{Private: map[string][]string{h.host + "/team/*": {"acme"}}})
	acme, other := Asker{Namespace: "acme"}, Asker{Namespace: "other"}
	for _, by := range []Asker{other, {Namespace: "other", Operator: true}} {
		if _, err := s.EnsureFor(t.Context(), by, ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
			t.Errorf("%+v, before it is there: %v", by, err)
		}
	}
	if _, err := s.EnsureFor(t.Context(), acme, ref, nil); err != nil {
		t.Fatalf("whom it is granted to: %v", err)
	}
	if _, err := s.EnsureFor(t.Context(), other, ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
		t.Errorf("others, when it is there: %v", err)
	}
	infos, err := s.List()
	if err != nil || len(infos) != 1 || !s.MayUse(infos[0], acme) || s.MayUse(infos[0], other) || s.MayUse(infos[0], Asker{Namespace: "other", Operator: true}) {
		t.Errorf("%+v, %v", infos, err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.EnsureFor(t.Context(), other, h.host+"/team/app@"+digest.String(), nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
		t.Errorf("others, by its digest: %v", err)
	}
	later, err := OpenWith(s.dir, Options{PrivateRegistries: []string{h.host}})
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if _, err := later.EnsureFor(t.Context(), other, ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
		t.Errorf("when the configuration no longer says that it is private: %v", err)
	}
	// Who knows a private layer's name makes an image of it that lacks the layer itself.
	h.answer(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		if len(content) < 10_000 || !strings.Contains(r.URL.Path, "/open/") {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	stolen, err := name.ParseReference(h.host + "/open/app:1")
	if err == nil {
		err = remote.Write(stolen, img, remote.WithAuth(authn.Anonymous))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.EnsureFor(t.Context(), other, stolen.Name(), nil); sandbox.CodeOf(err) != sandbox.ImageNotFound {
		t.Errorf("a private layer by its name: %v", err)
	}
}

func TestPullsAreShared(t *testing.T) {
	h := newHub(t, nil)
	ref := h.push(t, "a", small(t, "a"))
	s := h.store(t, Options{})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			if _, err := s.Ensure(t.Context(), ref, nil); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if asked := h.asked(); len(asked) != 2 { // its configuration and its layer
		t.Errorf("asked for %q", asked)
	}
	again := h.push(t, "b:2", picture(t, v1.Config{User: "7"}, archive(t, file{name: "g"})))
	both, err := s.Ensure(t.Context(), again, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.push(t, "b:2", small(t, "new"))
	if same, err := s.Ensure(t.Context(), again, nil); err != nil || same.Digest != both.Digest {
		t.Errorf("a tag that moved: %v, %v", same, err)
	}
	if moved, err := s.Refresh(t.Context(), again, nil); err != nil || moved.Digest == both.Digest {
		t.Errorf("looked at again: %v, %v", moved, err)
	}
}

func TestPullEndsWithTheStore(t *testing.T) {
	h := newHub(t, nil)
	ref := h.push(t, "a", small(t, "a"))
	asked := make(chan struct{})
	var once sync.Once
	h.answer(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		if len(content) < 10_000 {
			return false
		}
		_, _ = w.Write(content[:10])
		w.(http.Flusher).Flush()
		once.Do(func() { close(asked) })
		<-r.Context().Done()
		return true
	})
	s := h.store(t, Options{})
	ended := make(chan error, 1)
	go func() { _, err := s.Ensure(context.Background(), ref, nil); ended <- err }()
	<-asked
	s.Close()
	if err := <-ended; sandbox.CodeOf(err) != sandbox.ShuttingDown {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}
