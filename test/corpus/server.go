package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// server is a server of this run's own.
type server struct {
	address string
	cmd     *exec.Cmd
}

// start starts binary's `serve` on dir, without rate limits, and waits until it is ready. It ends with this process.
func start(ctx context.Context, binary, dir, token string) (*server, error) {
	cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir)
	cmd.Env = append(os.Environ(), "OUTPOST_ADMIN_TOKEN="+token, "OUTPOST_RATE_LIMIT_PER_MINUTE=0", "OUTPOST_RATE_LIMIT_BURST=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w (make build makes it)", binary, err)
	}
	s := &server{cmd: cmd}
	if s.address, err = readyAddress(log); err != nil {
		_ = cmd.Wait()
		return nil, err
	}
	return s, context.Cause(ctx)
}

func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}
