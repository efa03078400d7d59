package e2e_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"outpost.run/outpost/sandbox"
)

// hub is a registry on loopback.
type hub struct {
	host string
	mu   sync.Mutex
	hold chan struct{} // blobs wait until it is closed; nil: they don't
}

func newHub(t *testing.T) *hub {
	t.Helper()
	s := &hub{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		hold := s.hold
		s.mu.Unlock()
		if hold != nil && strings.Contains(r.URL.Path, "/blobs/") {
			<-hold
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.host = strings.TrimPrefix(server.URL, "http://")
	return s
}

// server is one that may ask this registry.
func (s *hub) server(t *testing.T, more string) *server {
	return operated(t, fmt.Sprintf("images:\n  allow_private_registries: [%q]\n  %s\n", s.host, more))
}

func (s *hub) holdBlobs(c chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = c
}

// push puts an image into the registry and gives its reference.
func (s *hub) push(t *testing.T, repository string, img v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(s.host + "/" + repository)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.host + "/" + repository
}

// lookProgram is a static program that says what it sees; images of the tests have it for a shell. It is a language's
// interpreter in so far as it runs at all: as "say TEXT" it prints, as "put FILE" it writes a file and prints it.
const lookProgram = `package main

import ("fmt"; "os"; "strings")

func main() {
	code := ""
	if len(os.Args) > 1 { b, _ := os.ReadFile(os.Args[1]); code = string(b) }
	if name, ok := strings.CutPrefix(code, "put "); ok {
		old, _ := os.ReadFile(name)
		fmt.Printf("%s|", old)
		if err := os.WriteFile(name, []byte("kept"), 0o644); err != nil { fmt.Println(err); os.Exit(1) }
		return
	}
	dir, _ := os.Getwd()
	fmt.Println(os.Getuid(), os.Getgid(), dir, os.Getenv("HOME"), os.Getenv("MARK"))
	for _, d := range []string{"/dev/null", "/proc/self/status", "/sys/devices/system/cpu/online"} {
		if _, err := os.Stat(d); err != nil { fmt.Println(err) }
	}
	for _, d := range []string{"/tmp", dir, "/"} {
		f, err := os.CreateTemp(d, "x")
		if err == nil { os.Remove(f.Name()) }
		fmt.Printf("%v ", err == nil)
	}
	fmt.Println()
}
`

var shell = sync.OnceValues(func() ([]byte, error) {
	dir := filepath.Join(work, "look")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(lookProgram), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "look"), filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "look"))
})

// picture is an image that has the static program as bash, and these files beside it.
func picture(t *testing.T, config v1.Config, files ...tar.Header) v1.Image {
	t.Helper()
	program, err := shell()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/bash", Typeflag: tar.TypeReg}, program)
	for _, h := range files {
		var text []byte
		if h.Typeflag == tar.TypeReg {
			text, h.Linkname = []byte(h.Linkname), ""
		}
		add(h, text)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	img := v1.Image(empty.Image)
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err == nil {
		img, err = mutate.Config(img, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func text(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Linkname: content, Mode: 0o644}
}

func withImage(image string) sandbox.CreateRequest {
	return sandbox.CreateRequest{Language: new("bash"), Image: &image}
}
