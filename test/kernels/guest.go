package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"outpost.run/outpost/test/kernels/cache"
	"outpost.run/outpost/test/kernels/plan"
)

// guest is one virtual machine that runs one plan.
type guest struct {
	qemu     []string
	kernel   *cache.Kernel
	initrd   string
	disk     string
	cpu      string
	memoryMB int
	cpus     int
	dir      string // for the test line's socket
}

// run boots the guest and hands over each line of its test line until it powers off. An error carries the last lines
// of the console; ctx ends a guest that hangs.
func (g *guest) run(ctx context.Context, line func(string)) error {
	socket := filepath.Join(g.dir, "line")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer l.Close()
	args := append(g.qemu[1:], "-M", "pc", "-accel", "tcg,thread=multi", "-cpu", g.cpu,
		"-m", strconv.Itoa(g.memoryMB), "-smp", strconv.Itoa(g.cpus),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", g.kernel.Image, "-initrd", g.initrd,
		"-append", "console=ttyS0 panic=-1 loglevel=6 random.trust_cpu=on mitigations=off kvm_amd.nested=0",
		"-drive", "if=none,id=root,format=raw,cache=unsafe,file="+g.disk, "-device", "virtio-blk-pci,drive=root",
		"-serial", "stdio", "-chardev", "socket,id=tests,path="+socket, "-serial", "chardev:tests")
	cmd := exec.CommandContext(ctx, g.qemu[0], args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var console tail
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		l.Close() // a QEMU that never connected
		ended <- err
	}()
	done, fatal := readLine(l, line)
	err = <-ended
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("the guest took too long and was ended: %w", context.Cause(ctx))
	case fatal != "":
		err = errors.New("the guest's init: " + fatal)
	case err != nil:
		err = fmt.Errorf("QEMU: %w", err)
	case !done:
		err = errors.New("the guest ended before its tests had")
	}
	if err != nil {
		return fmt.Errorf("%w\nlast lines of its console:\n%s", err, console.String())
	}
	return nil
}

// readLine hands over the tests' lines; done says that the guest came to its end, fatal why it couldn't.
func readLine(l net.Listener, line func(string)) (done bool, fatal string) {
	conn, err := l.Accept()
	if err != nil {
		return false, ""
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		text, err := in.ReadString('\n')
		text = strings.TrimSuffix(text, "\n")
		switch word, ok := strings.CutPrefix(text, plan.Mark); {
		case ok && word == plan.Done:
			done = true
		case ok && strings.HasPrefix(word, plan.Fatal):
			fatal = strings.TrimPrefix(word, plan.Fatal+" ")
		case text != "" || err == nil:
			line(text)
		}
		if err != nil {
			return done, fatal
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(strings.ReplaceAll(string(t.text), "\r", ""))
}

// buildInit compiles the guest's init.
func buildInit(ctx context.Context, dir string, log io.Writer) (string, error) {
	path := filepath.Join(dir, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "outpost.run/outpost/test/kernels/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the guest's init: %w", err)
	}
	return path, nil
}
