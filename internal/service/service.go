// Package service holds the use cases: create, exec, execute, keys. It knows no HTTP, no SQL and no kernel.
package service

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/internal/spool"
	"outpost.run/outpost/sandbox"
)

// Service is the use cases over one store and one runtime. All methods are safe for concurrent use.
type Service struct {
	policy  policy.Policy
	store   Store
	runtime Runtime
	root    [32]byte // hash of the first credential's token
	log     *slog.Logger
	run     string // id of this run of the server
	inuse   *use
	calls   calls
	events  *bell
	ended   func(language string, o ExecOutcome, err error)
	over    func(r sandbox.Sandbox, reason string, err error)
	execs   *execs
	queue   Queue
	tracer  trace.Tracer
	clock   Clock
	time    *line // from Start on

	mu       sync.Mutex
	live     map[string]*live      // by id; all sandboxes that exist
	attempts map[string]jobAttempt // at jobs that run, by the job's id
	draining bool
	active   sync.WaitGroup // calls that use machines
}

// live is one sandbox while the daemon runs.
type live struct {
	turn  *semaphore.Weighted // nil: execs need not wait (ephemeral)
	ctx   context.Context     // ends with the sandbox
	end   context.CancelFunc
	state sandbox.Sandbox // under Service.mu

	turning sync.Mutex // stop and start take turns
	record  sync.Mutex // held while the record is written
	time    *line
	made    time.Time    // on the line
	used    atomic.Int64 // milliseconds of the line
	kept    atomic.Int64 // of that, what the store has
	holds   atomic.Int64 // execs under way

	inBackground atomic.Int32 // programs
}

// Config is what a Service stands on.
type Config struct {
	Policy    policy.Policy
	Store     Store
	Runtime   Runtime
	RootToken string // of the first credential
	Log       *slog.Logger
	Ended     func(language string, o ExecOutcome, err error)   // hears of the end of each exec that was taken up; nil: nobody does
	TimeOver  func(r sandbox.Sandbox, reason string, err error) // hears of each sandbox whose time is over (ttl or idle), and how its deletion went; nil: nobody does
	Queue     Queue                                             // of jobs
	Output    *spool.Spool                                      // of the execs
	MaxOutput int64                                             // bytes kept of each stream of an exec, beyond those of its result
	Tracer    trace.Tracer                                      // of what no call waits for; nil: there are no traces
	Clock     Clock                                             // nil: the process's own, for which each start is a boot
}

// New makes a Service; Start must be called before any other method.
func New(c Config) *Service {
	if c.Ended == nil {
		c.Ended = func(string, ExecOutcome, error) {}
	}
	if c.TimeOver == nil {
		c.TimeOver = func(sandbox.Sandbox, string, error) {}
	}
	if c.Clock == nil {
		c.Clock = processClock{time.Now()}
	}
	return &Service{
		clock: c.Clock, policy: c.Policy, store: c.Store, runtime: c.Runtime, root: sha256.Sum256([]byte(c.RootToken)), log: c.Log,
		run: sandbox.NewID("run_"), inuse: newUse(c.Policy.Quota), calls: calls{pending: map[string]*pendingCall{}},
		live: map[string]*live{}, events: newBell(), ended: c.Ended, over: c.TimeOver,
		execs: newExecs(c.Output, c.MaxOutput, c.Store, c.Log), queue: c.Queue, tracer: c.Tracer, attempts: map[string]jobAttempt{},
	}
}

// Start finds the machines of the sandboxes that the store knows, and notes what became of each.
func (s *Service) Start(ctx context.Context) error {
	records, err := s.store.AllSandboxes(ctx)
	if err != nil {
		return err
	}
	moments, err := s.startTime(ctx, records)
	if err != nil {
		return err
	}
	if err := s.store.ExpireCalls(ctx, s.time.now()); err != nil {
		return err
	}
	specs := make([]SandboxSpec, len(records))
	for i, r := range records {
		specs[i] = specOf(r, 0)
		specs[i].Started = r.Status == sandbox.Running
	}
	states, err := s.runtime.Sync(ctx, specs)
	if err != nil {
		return err
	}
	for i, r := range records {
		before := r.Status
		if specs[i].Started && i < len(states) {
			r.Status = states[i].Status
			if states[i].Isolation.Engine != "" { // an ephemeral sandbox has no machine to read it from until its next exec
				r.Isolation = states[i].Isolation
			}
		}
		if r.Status == sandbox.LostNow || r.Status == sandbox.Stopped {
			r.Isolation = notInForce(r.Isolation)
		}
		if r.Status != before {
			s.log.Warn("sandbox changed while the server was away", "sandbox_id", r.ID, "from", before, "to", r.Status)
			r.UpdatedAt = sandbox.Now()
			if err := s.store.PutSandbox(ctx, r, moments[r.ID]); err != nil {
				return err
			}
			s.note(ctx, r.Namespace, sandbox.Event{SandboxID: r.ID, Type: string(r.Status), Status: r.Status, Reason: "lost"})
		}
		s.inuse.adopt(r.Namespace)
		s.live[r.ID] = s.newLive(r, moments[r.ID])
	}
	if err := s.resumeExecs(ctx); err != nil {
		return err
	}
	return s.queue.Start(context.WithoutCancel(ctx), s.runJob)
}

// Housekeep does what no call asks for, until ctx ends: it follows the runtime's events, deletes sandboxes whose time is
// over, and forgets old idempotency keys and events.
func (s *Service) Housekeep(ctx context.Context) {
	go s.follow(ctx)
	go s.reap(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
			s.execs.expire(time.Now().Add(-keepExec))
			if err := s.time.note(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("the time could not be noted", "error", err)
			}
			if err := s.store.ExpireCalls(ctx, s.time.now()); err != nil && ctx.Err() == nil {
				s.log.Error("old idempotency keys could not be removed", "error", err)
			}
			if err := s.store.ExpireEvents(ctx, time.Now().Add(-eventLife)); err != nil && ctx.Err() == nil {
				s.log.Error("old events could not be removed", "error", err)
			}
		}
	}
}

func (s *Service) newLive(r sandbox.Sandbox, m Moments) *live {
	l := &live{state: r, time: s.time, made: m.Made}
	l.used.Store(m.Used.UnixMilli())
	l.kept.Store(m.Used.UnixMilli())
	l.ctx, l.end = context.WithCancel(context.Background())
	switch {
	case r.Mode == sandbox.Stateful:
		l.turn = semaphore.NewWeighted(int64(r.MaxConcurrency))
	case len(r.Ports) > 0 || r.DiskSizeGB != nil || r.ResourceLimits.GPU != nil: // what only one machine at a time can have
		l.turn = semaphore.NewWeighted(1)
	}
	return l
}

func specOf(r sandbox.Sandbox, wait time.Duration) SandboxSpec {
	s := SandboxSpec{
		ID: r.ID, Namespace: r.Namespace, Language: r.Language, Image: r.Image, Mode: r.Mode, Limits: r.ResourceLimits,
		Env: r.Env, WorkingDir: r.WorkingDir, Security: r.Security, Network: r.Network, Ports: r.Ports, Health: r.HealthCheck, CreateWait: wait,
		Started: true, ImageDigest: r.ImageDigest,
	}
	if r.DiskSizeGB != nil && r.DiskMountPath != nil {
		s.Disk = &Disk{SizeGB: *r.DiskSizeGB, MountPath: *r.DiskMountPath}
	}
	return s
}

// Languages are those that this server runs.
func (s *Service) Languages() []string { return s.policy.Languages() }

// KnownLanguages are all that the contract names.
func KnownLanguages() []string { return policy.KnownLanguages() }

// find gives a sandbox of the namespace. Errors: NotFound, the same for another namespace's and for none.
func (s *Service) find(namespace, id string) (*live, sandbox.Sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.live[id]
	if l == nil || l.state.Namespace != namespace || l.ctx.Err() != nil {
		return nil, sandbox.Sandbox{}, noSandbox()
	}
	return l, l.state, nil
}

func noSandbox() error {
	return sandbox.Errorf(sandbox.NotFound, nil, "there is no such sandbox in this namespace")
}
