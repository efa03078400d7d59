package image

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// hub is a registry on loopback.
type hub struct {
	*httptest.Server
	host string

	mu    sync.Mutex
	blobs []string                                                                 // those asked for
	blob  func(w http.ResponseWriter, r *http.Request, content []byte) (done bool) // answers in its stead
}

func newHub(t testing.TB, around func(http.Handler) http.Handler) *hub {
	t.Helper()
	h := &hub{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.mu.Lock()
			h.blobs = append(h.blobs, r.URL.Path)
			answer := h.blob
			h.mu.Unlock()
			if answer != nil {
				got := httptest.NewRecorder()
				plain := r.Clone(r.Context())
				plain.Header.Del("Range")
				inner.ServeHTTP(got, plain)
				if answer(w, r, got.Body.Bytes()) {
					return
				}
			}
		}
		inner.ServeHTTP(w, r)
	})
	if around != nil {
		handler = around(handler)
	}
	h.Server = httptest.NewServer(handler)
	t.Cleanup(h.Close)
	u, err := url.Parse(h.URL)
	if err != nil {
		t.Fatal(err)
	}
	h.host = u.Host
	return h
}

// push puts an image into the registry and gives its reference.
func (h *hub) push(t testing.TB, repository string, img v1.Image, options ...remote.Option) string {
	t.Helper()
	ref, err := name.ParseReference(h.host + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, options...); err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

// asked are the blobs asked for since the last time.
func (h *hub) asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.blobs
	h.blobs = nil
	return b
}

func (h *hub) answer(f func(http.ResponseWriter, *http.Request, []byte) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blob = f
}

// store is one that may ask this registry.
func (h *hub) store(t testing.TB, o Options) *Store {
	t.Helper()
	o.PrivateRegistries = append(o.PrivateRegistries, h.host)
	s, err := OpenWith(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// picture is an image of layers.
func picture(t testing.TB, config v1.Config, layers ...[]byte) v1.Image {
	t.Helper()
	img := v1.Image(empty.Image)
	for _, l := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l)), nil })
		if err == nil {
			img, err = mutate.AppendLayers(img, layer)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	img, err := mutate.Config(img, config)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// patient makes pulls impatient.
func patient(t testing.TB) {
	was := [2]time.Duration{stall, again}
	stall, again = 200*time.Millisecond, time.Millisecond
	t.Cleanup(func() { stall, again = was[0], was[1] })
}
