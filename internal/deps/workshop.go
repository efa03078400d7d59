package deps

import (
	"context"
	"io"
	"log"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/index"
	"outpost.run/outpost/sandbox"
)

// workDir is an installer's: it writes nowhere else. What is found by its path lies at the same one where it is used.
const workDir = "/opt/deps"

// limits are an installation's own.
var limits = sandbox.Limits{MemoryMB: 2048, CPUCores: 2, DiskMB: 4096, Pids: 512, TimeoutMS: int(installTime.Milliseconds())}

// Of what an installer says, so much is taken; of its layer, what bounds say.
const (
	saidMost = 64 << 20
	tarMost  = 4 << 30
)

// workshop is a machine in which one set is installed.
type workshop struct {
	m    engine.Machine
	env  [][2]string
	runs int
}

// open starts the machine of an installation. It is held like a program of preset standard, as a user without any power,
// and has no way out.
func (in *Installer) open(ctx context.Context, layers []string, env [][2]string, microVM bool) (*workshop, error) {
	m, err := in.Machines.Start(ctx, engine.MachineSpec{
		Layers: layers, Limits: limits, WorkingDir: workDir, Env: env, Egress: "none",
		Security: sandbox.Security{SeccompEnabled: true, JailerEnabled: microVM, User: "1000:1000", Preset: sandbox.Standard},
	})
	if err != nil {
		return nil, err
	}
	env = append(env, [][2]string{
		{"HOME", workDir + "/home"}, {"TMPDIR", workDir + "/tmp"}, {"XDG_CACHE_HOME", workDir + "/cache"}, {"CI", "1"}, {"NO_COLOR", "1"},
	}...)
	return &workshop{m: m, env: env}, nil
}

// connectionsMost is how many the machine may have with the proxy: each is a descriptor of the daemon's. More wait.
const connectionsMost = 128

// serve lets the machine ask an index until close.
func (w *workshop) serve(ctx context.Context, p *index.Proxy) (stop func(), err error) {
	inside, err := w.m.Network()
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	l, err := inside.Listen(ctx, index.Address)
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = s.Serve(netutil.LimitListener(l, connectionsMost)) }()
	return func() { s.Close(); p.Close() }, nil
}

// script runs words of the shell with arguments, which it never takes for words of its own. It answers whether the exit
// code was 0, and all that was said where it was not.
func (w *workshop) script(ctx context.Context, text string, env [][2]string, out io.Writer, args ...string) (code int, said string, err error) {
	w.runs++
	place, err := w.m.Park(ctx, engine.ExecSpec{ID: "install" + strconv.Itoa(w.runs), User: "1000:1000", Limits: limits})
	if err != nil {
		return 0, "", err
	}
	defer place.Close()
	defer context.AfterFunc(ctx, func() { _ = place.Kill() })()
	var words tail
	both := &sync.Mutex{}
	stderr := locked{both, &words}
	var stdout io.Writer = stderr
	if out != nil {
		stdout = out
	}
	argv := append([]string{"/bin/sh", "-c", "umask 022; mkdir -p \"$HOME\" \"$TMPDIR\" || exit; " + text, "sh"}, args...)
	most := int64(saidMost)
	if out != nil {
		most = tarMost
	}
	exit, _, err := place.Run(agent.Run{Argv: argv, Env: append(w.env, env...), Dir: workDir, MaxOutput: most},
		agent.Feed{Stdout: stdout, Stderr: stderr, Started: func() {}, Exited: func(agent.Exit) {}})
	if ctx.Err() != nil {
		return 0, "", ctx.Err()
	}
	_, oom := place.Usage()
	switch {
	case oom:
		return 0, "", sandbox.Errorf(sandbox.DepsFailed, nil, "the installation needed more than the %d MB of memory that it has", limits.MemoryMB)
	case err != nil:
		return 0, "", err
	case out != nil && exit.StdoutBytes > most:
		return 0, "", errTooLarge
	}
	return exit.Code, string(words.kept), nil
}

var errTooLarge = sandbox.Errorf(sandbox.DepsFailed, nil, "the dependencies could not be installed: there is more of them than is kept")

// locked lets two streams write to one.
type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
