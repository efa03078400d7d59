// Package e2e_test proves the contract from outside: through the real binary, by HTTP and by the command line.
package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"outpost.run/outpost/internal/image"
	"outpost.run/outpost/internal/image/imagetest"
)

var (
	binary string // bin of the tests' own, with the agent inside
	work   string // on the file system of the image store, so that images are hard links
	shared *server

	leftBehind atomic.Bool // something of a test stays on the host
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test skips, with the reason
	}
	os.Exit(run(m))
}

// onThisHost skips a test where sandboxes can't run, and lets go test know what the result hangs on.
func onThisHost(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sandboxes need root: mounts, control groups and loop devices")
	}
	if err := readSources(); err != nil {
		t.Fatal(err)
	}
}

func run(m *testing.M) int {
	fail := func(what string, err error) int {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		return 1
	}
	if err := prepare(); err != nil {
		return fail("prepare", err)
	}
	defer func() {
		if leftBehind.Load() { // it is all that tells whose that is
			fmt.Fprintf(os.Stderr, "something stays on the host; outpost serve --stop-all --data-dir %s/data-… removes it\n", work)
			return
		}
		if err := removeBelow(work); err != nil {
			fmt.Fprintln(os.Stderr, "left behind:", err)
		}
	}()
	var err error
	if shared, err = start(filepath.Join(work, "shared"), "--stop-all"); err != nil {
		return fail("start the server", err)
	}
	code := m.Run()
	if err := shared.terminate(); err != nil {
		return fail("stop the server", err)
	}
	if out, err := shared.leaks(); err != nil {
		return fail("after the server's end: "+out, err)
	}
	return code
}

// prepare makes the binary, and the images where this machine has none yet.
func prepare() error {
	images := imagetest.Dir()
	if err := os.MkdirAll(images, 0o700); err != nil {
		return err
	}
	var err error
	if work, err = os.MkdirTemp(filepath.Dir(images), "e2e-"); err != nil {
		return err
	}
	store, err := image.Open(images)
	if err != nil {
		return err
	}
	defer store.Close()
	for _, ref := range []string{imagetest.Bash, imagetest.Python, imagetest.Node, imagetest.Go, imagetest.Rust} {
		if _, err := store.Ensure(context.Background(), ref, nil); err != nil {
			return fmt.Errorf("image %s: %w", ref, err)
		}
	}
	binary = filepath.Join(work, "outpost")
	root := filepath.Join("..", "..")
	for _, inside := range [][2]string{{"container/agent.bin", "./cmd/outpost-agent"}, {"microvm/guest.bin", "./cmd/outpost-guest"}} { // each has the one before inside
		path := filepath.Join(root, "internal", "engine", inside[0])
		if err := build(root, path+".new", inside[1]); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return build(root, binary, "./cmd/outpost")
}

// readSources looks at every folder of the module while a test runs, which is when go test takes note: so it keeps no
// result of another binary.
var readSources = sync.OnceValue(func() error {
	return filepath.WalkDir(filepath.Join("..", ".."), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return fs.SkipDir
		}
		return err
	})
})

func build(root, output, pkg string) error {
	output, err := filepath.Abs(output)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", output, pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}
