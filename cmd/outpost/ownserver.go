package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"outpost.run/outpost/client"
)

// readyLine is what `outpost serve` says when it accepts calls; its address follows.
const readyLine = "outpost ready on "

// ownServer is a server that a command started for itself, on a free loopback port.
type ownServer struct {
	*client.Client
	token  string
	cmd    *exec.Cmd
	logged chan struct{} // closed when its log has ended
}

// startServer starts this program's `serve` on dir and waits until it is ready; its log goes to log. It ends with this
// process, whatever becomes of that.
func startServer(ctx context.Context, dir string, log io.Writer, flags ...string) (*ownServer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	token := rand.Text() + rand.Text()
	cmd := exec.Command(self, append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", dir}, flags...)...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "OUTPOST_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, "OUTPOST_ADMIN_TOKEN="+token)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM} // ^C comes to this process alone
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	s := &ownServer{token: token, cmd: cmd, logged: make(chan struct{})}
	address := make(chan string, 1)
	go s.follow(stderr, log, address)
	select {
	case a, ok := <-address:
		if !ok {
			return nil, fmt.Errorf("the server ended before it was ready (%v): what it said is above", cmd.Wait())
		}
		s.Client, err = client.New(a, token)
		return s, err
	case <-ctx.Done():
		return nil, s.stop(ctx)
	}
}

func (s *ownServer) follow(stderr io.Reader, log io.Writer, address chan<- string) {
	defer close(s.logged)
	defer close(address)
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		if _, a, ok := strings.Cut(strings.TrimSpace(line), readyLine); ok {
			select {
			case address <- strings.Fields(a)[0]:
			default: // it was said before
			}
		}
		if line != "" {
			fmt.Fprintf(log, "  server: %s\n", strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

// stopLimit is how long a server may take to end: longer than its drain_secs.
const stopLimit = 60 * time.Second

// stop ends the server as an operator would and waits until it is gone.
func (s *ownServer) stop(ctx context.Context) error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	overdue := time.AfterFunc(stopLimit, func() { _ = s.cmd.Process.Kill() })
	<-s.logged
	err := s.cmd.Wait()
	if !overdue.Stop() {
		return fmt.Errorf("the server did not stop within %v and was killed", stopLimit)
	}
	if err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	return context.Cause(ctx)
}

// ownDataDir is where a command's own server keeps its images between runs.
func ownDataDir(name string) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder (%w): say one by --data-dir", err)
	}
	return filepath.Join(base, "outpost", name), nil
}
