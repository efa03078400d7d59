package e2e_test

import (
	"archive/tar"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/image/imagetest"
	"outpost.run/outpost/sandbox"
)

// liarProgram is the shell of an image that a tenant made: it answers installations as MODE says.
const liarProgram = `package main

import ("archive/tar"; "fmt"; "io"; "net/http"; "os"; "strings")

func main() {
	script, mode := os.Args[2], os.Getenv("MODE")
	does := func(what string) bool { return strings.Contains(script, what) }
	switch {
	case does("pip --version"):
		if mode == "no installer" { fmt.Fprintln(os.Stderr, "No module named pip"); os.Exit(1) }
	case does("pip download --help"):
		fmt.Println("--index-url (default http://" + os.Getenv("VICTIM") + "/secret/)")
	case does("pip install"):
		if mode == "index" { http.Get("http://127.0.0.1/pip/0/six/"); os.Exit(1) }
	case does("pip', 'list'"):
		at := map[string]string{"place": "/proc/self/fd", "way up": "/usr/../proc/x", "root": "/"}[mode]
		if at == "" { at = "/usr/local/lib/liar" }
		switch mode {
		case "words": fmt.Println("six 1.0")
		case "no end": for { fmt.Println("[") }
		default: fmt.Printf("{\"at\": %q, \"home\": \"/usr/local/lib/liar\", \"resolved\": [\"a==1\"]}", at)
		}
	case does("tar"):
		w := tar.NewWriter(os.Stdout)
		switch mode {
		case "no tar": fmt.Fprintln(os.Stderr, "tar: not found"); os.Exit(127)
		case "garbage": io.WriteString(os.Stdout, strings.Repeat("x", 5000)); return
		case "way out":
			w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/"})
			w.WriteHeader(&tar.Header{Name: "x/outpost-was-here", Typeflag: tar.TypeReg, Mode: 0o644})
			w.WriteHeader(&tar.Header{Name: "../../../../../outpost-was-here", Typeflag: tar.TypeReg, Mode: 0o644})
		}
		w.Close()
	}
}
`

var liar = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(work, "liar")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(liarProgram), 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "sh"), filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return string(out), err
	}
	b, err := os.ReadFile(filepath.Join(dir, "sh"))
	return string(b), err
})

// TestAnImageThatLies: a tenant's own image has the installer; whatever it says leads to a refusal, never further.
func TestAnImageThatLies(t *testing.T) {
	onThisHost(t)
	var asked atomic.Int64
	victim := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer victim.Close()
	store, err := image.Open(imagetest.Dir())
	if err == nil {
		_, err = store.Ensure(t.Context(), withPip, nil)
		store.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	program, err := liar()
	if err != nil {
		t.Fatal(program, err)
	}
	r := newHub(t)
	s := r.server(t, "")
	executable := func(name, content string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Linkname: content, Mode: 0o755}
	}
	look, err := shell()
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]sandbox.Code{
		"well": "", "no installer": sandbox.NotSupported, "index": sandbox.DepsFailed, "place": sandbox.DepsFailed, "way up": sandbox.DepsFailed, "root": sandbox.DepsFailed,
		"words": sandbox.DepsFailed, "no end": sandbox.DepsFailed, "no tar": sandbox.DepsFailed, "garbage": sandbox.DepsFailed, "way out": sandbox.DepsFailed,
	} {
		config := v1.Config{Env: []string{"MODE=" + mode, "VICTIM=" + strings.TrimPrefix(victim.URL, "http://")}}
		ref := r.push(t, "liar:"+strings.ReplaceAll(mode, " ", "-"), picture(t, config, executable("bin/sh", program), executable("bin/python3", string(look))))
		result, err := s.Execute(t.Context(), sandbox.ExecuteRequest{Language: new("python"), Image: &ref, Code: new("x"), Deps: []string{"six==1.16.0"}})
		if sandbox.CodeOf(err) != want {
			t.Errorf("%s: %+v, %v", mode, result, err)
		}
		if mode == "well" && (len(result.DepsResolved) != 1 || result.ExitCode != 0) {
			t.Errorf("%s: %+v", mode, result)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("what an image named was asked %d times", n)
	}
	for _, path := range []string{"/outpost-was-here", filepath.Join(s.dir, "outpost-was-here")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("there is %s", path)
		}
	}
}
