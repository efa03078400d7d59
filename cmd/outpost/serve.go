package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/internal/jobs"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/internal/server"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/spool"
	"outpost.run/outpost/internal/store/sqlite"
)

// grace is what answers under way have to reach their clients, once their execs have ended.
const grace = 5 * time.Second

func serveCommand() *cobra.Command {
	var file string
	var stopAll bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Start the server",
		Long: `Starts the server and prints "outpost ready on http://…" to stderr when it accepts calls.

Every key of the configuration file is also a flag, and a variable OUTPOST_…; flags win over
variables, variables over the file. The first credential comes from OUTPOST_ADMIN_TOKEN, else from
admin.token in the data directory, which the first start makes.

SIGTERM stops it: execs under way have drain_secs to end, stateful sandboxes live on for the next
start, unless --stop-all.`,
		Args: asUsed,
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration file (YAML)")
	f.BoolVar(&stopAll, "stop-all", false, "stop stateful sandboxes too when the server stops")
	for _, k := range config.Keys() {
		f.Var(&setting{k.Initial, k.Kind}, k.Flag(), k.Doc)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := host.EnterPrivateMounts(); err != nil {
			return err
		}
		c, err := config.Load(config.Sources{File: file, Env: os.LookupEnv, Flags: func(name string) (string, bool) {
			return f.Lookup(name).Value.String(), f.Changed(name)
		}})
		if err != nil {
			return err
		}
		return serve(cmd.Context(), c, stopAll, cmd.ErrOrStderr())
	}
	return cmd
}

// setting is a key of the configuration as a flag; what it says is judged with all others.
type setting struct{ text, kind string }

func (s *setting) String() string        { return s.text }
func (s *setting) Set(text string) error { s.text = text; return nil }
func (s *setting) Type() string          { return s.kind }

// serve runs the server until ctx ends. Mounts of the host are left alone by entering a mount namespace of the server's
// own before anything else.
func serve(ctx context.Context, c config.Config, stopAll bool, stderr io.Writer) (err error) {
	how := newProgress(stderr) // of the images that it makes
	defer how.end()
	stderr = how.above(stderr)
	log := newLogger(c.Log, stderr)
	if c.DataDir, err = filepath.Abs(c.DataDir); err != nil {
		return err
	}
	socket, deaf := net.Listen("tcp", c.Listen)
	if deaf == nil {
		defer socket.Close() //nolint:errcheck // it is closed where it was served
	} else if _, err := os.Stat(c.DataDir); err != nil {
		return deaf // and no folder is left of it
	}
	unlock, err := lockDataDir(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	if deaf != nil { // that another server runs on the directory says more
		return deaf
	}
	if c.DataDir, err = filepath.EvalSymlinks(c.DataDir); err != nil { // what is mounted below it follows no links
		return err
	}
	token, err := firstCredential(c.DataDir, log)
	if err != nil {
		return err
	}
	store, err := sqlite.Open(ctx, filepath.Join(c.DataDir, "outpost.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	measures := metrics.New()
	machines, noMicroVM, err := newRuntime(ctx, c, measures, how, log)
	if err != nil {
		return err
	}
	rules := c.ForPolicy()
	rules.MicroVM = noMicroVM
	output, err := spool.Open(filepath.Join(c.DataDir, "output"), int64(c.Output.KeepMB)<<20)
	if err != nil {
		return errors.Join(err, machines.Close(context.WithoutCancel(ctx), false))
	}
	records, err := openAudit(ctx, c.Audit, measures, log)
	if err != nil {
		return errors.Join(err, machines.Close(context.WithoutCancel(ctx), false))
	}
	defer records.Close()
	queue, err := openQueue(ctx, c, measures, log)
	if err != nil {
		return errors.Join(err, machines.Close(context.WithoutCancel(ctx), false))
	}
	clock, err := host.NewClock()
	if err != nil {
		return errors.Join(err, machines.Close(context.WithoutCancel(ctx), false))
	}
	tracer, stopTracing, err := openTracing(ctx, c.Tracing, measures, log)
	if err != nil {
		return errors.Join(err, machines.Close(context.WithoutCancel(ctx), false))
	}
	defer stopTracing()
	svc := service.New(service.Config{
		Policy: rules, Store: store, Runtime: machines, RootToken: token, Log: log, Ended: measures.ExecEnds, TimeOver: records.timeOver,
		Queue: queue, Output: output, MaxOutput: int64(c.Output.StreamMB) << 20, Clock: clock, Tracer: tracer,
	})
	measures.WatchLoad(svc.Load)
	if err := svc.Start(ctx); err != nil {
		return errors.Join(err, machines.Close(context.WithoutCancel(ctx), false))
	}
	web, err := server.New(server.Config{
		Service: svc, Log: log, Version: version(), PerMinute: c.RateLimit.PerMinute, Burst: c.RateLimit.Burst,
		Metrics: measures, MetricsAccess: c.Metrics.Access, Audit: records.log, AuditRequired: c.Audit.Required, Tracer: tracer,
	})
	if err != nil {
		return errors.Join(err, svc.Shutdown(context.WithoutCancel(ctx), 0, false))
	}
	return answer(ctx, c, socket, svc, web, stopAll, log, stderr)
}

// openQueue opens the queue of jobs. The secret that callbacks are signed with is made at the first start.
func openQueue(ctx context.Context, c config.Config, m *metrics.Metrics, log *slog.Logger) (*jobs.Queue, error) {
	path := filepath.Join(c.DataDir, "callback.secret")
	secret, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		secret = make([]byte, 32)
		_, _ = rand.Read(secret) // never fails: crypto/rand ends the process instead
		err = writeWhole(path, secret, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return jobs.Open(ctx, jobs.Options{
		Dir: filepath.Join(c.DataDir, "jobs"), Concurrency: c.Jobs.Concurrency, PerNamespace: c.Jobs.ConcurrencyPerNamespace,
		MaxQueued: c.Jobs.MaxQueued, MaxQueuedInAll: c.Jobs.MaxQueuedInAll, MaxQueuedBytes: int64(c.Jobs.MaxQueuedMB) << 20,
		Keep: time.Duration(c.Jobs.ResultsTTLHours) * time.Hour, KeepBytes: int64(c.Jobs.ResultsMB) << 20,
		Secret: secret, CallbackAllow: c.Jobs.Callbacks(), Log: log, Watcher: m,
	})
}

// answer answers calls until ctx ends, and lets those under way end.
func answer(ctx context.Context, c config.Config, socket net.Listener, svc *service.Service, web *server.Server, stopAll bool, log *slog.Logger, stderr io.Writer) error {
	last := context.WithoutCancel(ctx)
	address := "http://" + socket.Addr().String()
	card := filepath.Join(c.DataDir, "server.json")
	if err := writeCard(card, address); err != nil {
		return errors.Join(err, svc.Shutdown(last, 0, false))
	}
	defer os.Remove(card) //nolint:errcheck // the next start writes it anew
	answering, stopAnswering := context.WithCancel(last)
	defer stopAnswering()
	ended := make(chan error, 1)
	go func() { ended <- web.Serve(answering, socket, grace) }()
	go svc.Housekeep(answering)
	fmt.Fprintln(stderr, "outpost ready on "+address)
	select {
	case err := <-ended:
		return errors.Join(err, svc.Shutdown(last, 0, stopAll))
	case <-ctx.Done():
	}
	signal.Reset(os.Interrupt, syscall.SIGTERM) // a second one ends the process at once
	log.Info("stopping", "drain", c.Drain())
	err := svc.Shutdown(last, c.Drain(), stopAll)
	stopAnswering()
	return errors.Join(err, <-ended)
}

// writeCard leaves the address for clients beside the server.
func writeCard(path, address string) error {
	text, err := json.Marshal(map[string]any{"url": address, "pid": os.Getpid()})
	if err != nil {
		return err
	}
	return writeWhole(path, append(text, '\n'), 0o644)
}

// lastBreath is how long what a killed server was just starting may hold its lock: a process between fork and exec.
const lastBreath = 2 * time.Second

// lockDataDir makes the data directory this process's alone.
func lockDataDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the data directory can't be made: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory can't be used: %w", err)
	}
	for end := time.Now().Add(lastBreath); ; time.Sleep(5 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("another server runs on %s; stop it, or give this one another --data-dir", dir), f.Close())
		}
	}
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(err) // the configuration was checked
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
