package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"outpost.run/outpost/client"
	"outpost.run/outpost/internal/image/imagetest"
)

const adminToken = "0123456789abcdef0123456789abcdef-e2e"

// server is one `outpost serve` on a data directory of its own.
type server struct {
	*client.Client
	dir   string
	flags []string
	at    *site // nil: the host itself
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone and its log has ended

	mu  sync.Mutex
	log []string
	err error // of its end
}

// newServer starts a server for one test; at its end it must stop cleanly and leave nothing.
func newServer(t *testing.T, flags ...string) *server {
	t.Helper()
	onThisHost(t)
	dir, err := os.MkdirTemp(work, "data-")
	if err != nil {
		t.Fatal(err)
	}
	s, err := start(dir, flags...)
	if err != nil {
		t.Fatal(err)
	}
	s.endWith(t)
	return s
}

func (s *server) endWith(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's last words:\n%s", s.lastWords())
		}
		if s.running() {
			if err := s.terminate(); err != nil {
				t.Errorf("the server did not end well: %v", err)
			}
		}
		s.discard(t)
	})
}

// start starts a server on dir, with the images of the tests, and waits until it is ready.
func start(dir string, flags ...string) (*server, error) {
	if err := linkImages(filepath.Join(dir, "images")); err != nil {
		return nil, err
	}
	s := &server{dir: dir, flags: flags}
	return s, s.start()
}

func (s *server) start() error {
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", s.dir, "--rate-limit-per-minute", "0"}, s.flags...)
	s.cmd = s.at.command(binary, args...)
	s.cmd.Env = append(os.Environ(), "OUTPOST_ADMIN_TOKEN="+adminToken, "OUTPOST_E2E_CANARY=a variable of the host")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.at.start(s.cmd); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	address := make(chan string, 1)
	go s.follow(bufio.NewScanner(stderr), address)
	select {
	case a := <-address:
		s.Client, err = client.New(a, adminToken, client.WithHTTPClient(s.at.client()))
		return err
	case <-s.ended:
		return fmt.Errorf("the server ended before it was ready: %v\n%s", s.err, s.lastWords())
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the server is not ready after a minute"), s.kill())
	}
}

func (s *server) follow(lines *bufio.Scanner, address chan<- string) {
	cmd := s.cmd
	for lines.Scan() {
		if a, ok := strings.CutPrefix(lines.Text(), "outpost ready on "); ok {
			address <- a
		}
		s.mu.Lock()
		s.log = append(s.log, lines.Text())
		s.mu.Unlock()
	}
	s.err = cmd.Wait()
	close(s.ended)
}

func (s *server) running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// kill ends the server as a crash would.
func (s *server) kill() error {
	err := s.cmd.Process.Kill()
	<-s.ended
	return err
}

// terminate ends the server as an operator would; it must exit 0.
func (s *server) terminate() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.ended:
		return s.err
	case <-time.After(time.Minute):
		return errors.Join(fmt.Errorf("it runs a minute after SIGTERM:\n%s", s.lastWords()), s.kill())
	}
}

func (s *server) lastWords() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log[max(0, len(s.log)-40):], "\n")
}

// command runs the outpost command line beside the server.
func (s *server) command(args ...string) (string, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "OUTPOST_DATA_DIR="+s.dir, "OUTPOST_TOKEN="+adminToken)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// leaks asks the host's own doctor; an error means that something leaks.
func (s *server) leaks() (string, error) { return s.command("doctor", "--leaks") }

// leakCheck fails the test at its end if anything of it stays on the host without a sandbox.
func leakCheck(t *testing.T, s *server) {
	t.Helper()
	onThisHost(t)
	t.Cleanup(func() {
		if out, err := s.leaks(); err != nil {
			t.Errorf("leaks: %v\n%s", err, out)
		}
	})
}

// discard ends what a stopped server left alive, by a last start with --stop-all and no sandboxes, and removes its data.
func (s *server) discard(t *testing.T) {
	t.Helper()
	for _, name := range []string{"outpost.db", "outpost.db-wal", "outpost.db-shm"} { // no records: nothing has an owner
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
	if err := s.start(); err != nil {
		t.Errorf("the last start: %v", err)
		return
	}
	if err := s.terminate(); err != nil {
		t.Errorf("the last stop: %v", err)
	}
	if left := append(s.held(t), s.groups(t)...); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
		leftBehind.Store(true)
		return
	}
	if err := removeBelow(s.dir); err != nil {
		t.Error(err)
	}
}

// linkImages gives a server the images of the tests: their layers as hard links, since they are never written to.
func linkImages(to string) error {
	from := imagetest.Dir()
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir() && (rel == "apt" || rel == "tmp"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case filepath.Ext(path) == ".erofs":
			if err := os.Link(path, target); !os.IsExist(err) {
				return err
			}
			return nil
		case strings.HasPrefix(rel, "refs") || strings.HasPrefix(rel, "made"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, b, 0o600)
		}
		return nil
	})
}

// removeBelow removes a directory, and refuses where something is mounted in it.
func removeBelow(dir string) error {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			return fmt.Errorf("something is mounted at %s", f[4])
		}
	}
	return os.RemoveAll(dir)
}
