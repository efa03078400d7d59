// Package jobs is the queue: jobs in a SQLite file of their own, written through to the disk at each step, and River's workers that
// run their attempts. Which job is next is decided here: the namespaces take turns, and River never has more of them than can run.
// What River itself notes is in another file, which no start needs.
package jobs

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/internal/store/sqlitefile"
	"outpost.run/outpost/sandbox"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are what a queue needs.
type Options struct {
	Dir            string // of its files; only its owner may read them
	Concurrency    int    // attempts at once
	PerNamespace   int    // of one namespace; 0: half of Concurrency
	MaxQueued      int    // jobs of one namespace that wait
	MaxQueuedInAll int
	MaxQueuedBytes int64         // of the jobs of one namespace that wait; eight times that of all
	Keep           time.Duration // how long a job is known after its end
	KeepBytes      int64         // of results, of all namespaces; half of that of one: the oldest go before their time
	Secret         []byte        // what the keys of callbacks are made from
	CallbackAllow  []netip.Prefix
	Log            *slog.Logger
	Watcher        Watcher // nil: nobody hears
}

// Watcher hears what becomes of jobs.
type Watcher interface {
	// JobEnds: a job has ended so.
	JobEnds(status sandbox.JobStatus)
	// CallbackEnds: a callback was heard, or failed once more.
	CallbackEnds(heard bool)
}

type unwatched struct{}

func (unwatched) JobEnds(sandbox.JobStatus) {}
func (unwatched) CallbackEnds(bool)         {}

// Queue is a service.Queue.
type Queue struct {
	o     Options
	db    *sql.DB // one connection, which writes
	gets  *sql.DB // some that read what is found at once
	lists *sql.DB // some that read much: who lists holds up others who do
	under *sql.DB // River's
	river *river.Client[*sql.Tx]
	run   func(context.Context, service.JobSpec) service.JobOutcome
	wake  chan struct{}
	ctx   context.Context // ends with Close
	end   context.CancelFunc
	work  sync.WaitGroup // what Start began
	back  backoff

	mu      sync.Mutex
	paused  bool
	out     map[string]int // attempts handed out, by namespace
	all     int            // of them
	turn    []string       // namespaces in the order of their turns
	running map[string]*attempt
	wait    map[string]*amount // by namespace, "" for all: what waited when it was counted, and what was submitted since
}

var _ service.Queue = (*Queue)(nil)

// attempt is one that was handed out.
type attempt struct {
	id, namespace string
	spec          []byte
	history       history
	ctx           context.Context
	cancel        context.CancelFunc
	cancelled     bool // under Queue.mu, as is begun
	begun         bool
	done          chan struct{}
}

// Open opens the queue's files and makes them where they are missing.
func Open(ctx context.Context, o Options) (*Queue, error) {
	if o.PerNamespace <= 0 {
		o.PerNamespace = (o.Concurrency + 1) / 2
	}
	if o.Watcher == nil {
		o.Watcher = unwatched{}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	q := &Queue{o: o, wake: make(chan struct{}, 1), out: map[string]int{}, running: map[string]*attempt{}, wait: map[string]*amount{}, back: usualBackoff}
	q.ctx, q.end = context.WithCancel(context.Background())
	var err error
	path := filepath.Join(o.Dir, "jobs.db")
	if err := sqlitefile.Touch(path); err != nil {
		return nil, err
	}
	if q.db, err = sqlitefile.Open(path, "FULL", 1); err != nil {
		return nil, err
	}
	if err := sqlitefile.Migrate(ctx, q.db, migrations); err != nil {
		return nil, errors.Join(sqlitefile.Behind(path, err), q.db.Close())
	}
	for _, readers := range []**sql.DB{&q.gets, &q.lists} {
		if *readers, err = sqlitefile.Open(path, "FULL", 4); err != nil {
			return nil, errors.Join(err, q.closeFiles())
		}
	}
	if err := q.openUnder(ctx); err != nil {
		return nil, errors.Join(err, q.closeFiles())
	}
	return q, nil
}

// openUnder makes River's file anew: it has attempts that are under way, and those of a former run are not. So its commits wait for no
// disk.
func (q *Queue) openUnder(ctx context.Context) error {
	path := filepath.Join(q.o.Dir, "river.db")
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + part); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := sqlitefile.Touch(path); err != nil {
		return err
	}
	var err error
	if q.under, err = sqlitefile.Open(path, "OFF", 1); err != nil { // River's driver for SQLite asks for one connection
		return err
	}
	theirs, err := rivermigrate.New(riversqlite.New(q.under), &rivermigrate.Config{Logger: slog.New(quiet{q.o.Log.Handler()})})
	if err == nil {
		_, err = theirs.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		return sqlitefile.Behind(path, err)
	}
	return nil
}

func (q *Queue) closeFiles() (err error) {
	for _, one := range []*sql.DB{q.under, q.gets, q.lists, q.db} {
		if one != nil {
			err = errors.Join(err, one.Close())
		}
	}
	return err
}

// args name the job of one of River's.
type args struct {
	ID string `json:"id"`
}

// Kind implements river.JobArgs.
func (args) Kind() string { return "attempt" }

type worker struct {
	river.WorkerDefaults[args]
	q *Queue
}

// Work implements river.Worker.
func (w worker) Work(_ context.Context, j *river.Job[args]) error {
	w.q.attempt(j.Args.ID)
	return nil
}

// Timeout implements river.Worker: a program has a time of its own.
func (w worker) Timeout(*river.Job[args]) time.Duration { return -1 }

// atOnce is River's driver for SQLite without its notifications, which River looks for every 50 ms. Where a driver has none, an insert
// wakes River's workers itself: they are in this process.
type atOnce struct{ *riversqlite.Driver }

// SupportsListener implements riverdriver.Driver.
func (atOnce) SupportsListener() bool { return false }

// SupportsListenNotify implements riverdriver.Driver.
func (atOnce) SupportsListenNotify() bool { return false }

// Start implements service.Queue.
func (q *Queue) Start(ctx context.Context, run func(context.Context, service.JobSpec) service.JobOutcome) error {
	q.run = run
	if err := q.recover(ctx); err != nil {
		return fmt.Errorf("the jobs of the last run could not be taken up: %w", err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker{q: q})
	var err error
	q.river, err = river.NewClient(atOnce{riversqlite.New(q.under)}, &river.Config{
		Workers: workers, Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: q.o.Concurrency}},
		FetchCooldown: time.Millisecond, FetchPollInterval: time.Second, MaxAttempts: 1,
		CompletedJobRetentionPeriod: time.Minute, CancelledJobRetentionPeriod: time.Minute, DiscardedJobRetentionPeriod: time.Minute,
		Logger: slog.New(quiet{q.o.Log.Handler()}),
	})
	if err != nil {
		return err
	}
	if err := q.river.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	q.work.Go(q.dispatch)
	q.work.Go(q.tellEnds)
	q.work.Go(q.forgetOld)
	return nil
}

// quiet lets only what an operator must know of River's words through.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// stir lets the dispatcher look.
func (q *Queue) stir() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Pause implements service.Queue.
func (q *Queue) Pause() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.paused = true
}

// Close implements service.Queue.
func (q *Queue) Close(ctx context.Context) error {
	q.Pause()
	q.end()
	var err error
	if q.river != nil {
		if err = q.river.Stop(ctx); errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			q.o.Log.Warn("attempts at jobs are still under way; the next start repeats them")
			err = nil
		}
	}
	q.work.Wait()
	q.takeBack()
	return errors.Join(err, q.closeFiles())
}

// CallbackKey implements service.Queue.
func (q *Queue) CallbackKey(namespace string) string {
	h := hmac.New(sha256.New, q.o.Secret)
	h.Write([]byte("callbacks of " + namespace))
	return hex.EncodeToString(h.Sum(nil))
}

func internal(err error) error {
	if err == nil {
		return nil
	}
	return sandbox.Errorf(sandbox.Internal, err, "the queue could not be read or written")
}

func noJob() error {
	return sandbox.Errorf(sandbox.NotFound, nil, "there is no such job in this namespace")
}
