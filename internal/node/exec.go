package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// ending is why a program was stopped from outside.
type ending int

const (
	endNone ending = iota
	endDeadline
	endCancelled
	endLost
	endStuck
)

// grace is how long the answer waits for a killed program to be gone: it may hang in the kernel.
const grace = 200 * time.Millisecond

// agentTime is how long an agent may take for what it does itself: to park a process, to take files in, to collect them.
// A program can make its agent's work long, but not endless. A variable for the tests.
var agentTime = 30 * time.Second

// execution is one program that runs.
type execution struct {
	place   engine.Exec
	compile *compilation  // nil: nothing of it is kept
	id      string        // of the exec
	stays   bool          // its program outlives the server
	talks   bool          // it has a terminal
	done    chan struct{} // closed when it has answered

	mu              sync.Mutex
	why             ending
	stopped         chan struct{} // closed when why was set
	started, exited time.Time     // of the program; zero: not yet
	told            chan<- struct{}
	alarm           *time.Timer // ends what takes too long
}

// within lets the phase that begins now end as why after limit; 0: never.
func (x *execution) within(limit time.Duration, why ending) {
	if x.alarm != nil {
		x.alarm.Stop()
	}
	if limit == 0 {
		return
	}
	x.alarm = time.AfterFunc(limit, func() { x.end(why) })
}

func (x *execution) starts(limit time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.started = time.Now()
	select {
	case x.told <- struct{}{}:
	default: // nobody wants to know
	}
	x.within(limit, endDeadline)
}

func (x *execution) exits(agent.Exit) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.exited = time.Now()
	x.within(agentTime, endStuck)
}

// times are when the program started and exited; for one of which that was not told, now.
func (x *execution) times() (started, exited time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.alarm.Stop()
	started, exited = x.started, x.exited
	if exited.IsZero() {
		exited = time.Now()
	}
	if started.IsZero() {
		started = exited
	}
	return started, exited
}

// end kills the program; the first reason counts.
func (x *execution) end(why ending) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.why != endNone {
		return
	}
	x.why = why
	close(x.stopped)
	switch {
	case x.stays && why == endLost:
	case x.talks: // its session hears of it, and may leave something running
		x.place.Close()
	default:
		_ = x.place.Kill()
	}
}

func (x *execution) ended() ending {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.why
}

// Exec implements service.Runtime.
func (n *Node) Exec(ctx context.Context, id string, e service.ExecSpec, out service.Streams) (service.ExecOutcome, error) {
	began := time.Now()
	n.chores.heard()
	defer n.chores.heard()
	b, err := n.box(id)
	if err != nil {
		return service.ExecOutcome{}, err
	}
	done, err := n.begin()
	if err != nil {
		return service.ExecOutcome{}, err
	}
	defer done()
	if e.Resume != nil {
		return n.resume(ctx, b, e, out)
	}
	need, err := n.needsIn(ctx, b, e)
	if err != nil {
		return n.notBegun(ctx, b, err)
	}
	defer need.release()
	m, err := n.machineFor(ctx, b, e, need)
	if err != nil {
		return n.notBegun(ctx, b, err)
	}
	if b.spec.Mode == sandbox.Ephemeral {
		b.ends.Add(1)
		defer n.later(func() {
			defer b.ends.Done()
			_, part := phase.Begin(ctx, "delete")
			n.endNow(m)
			part.End(nil)
		})
		defer b.answer(m)()
	}
	if err := n.supply(ctx, b, m, &need); err != nil {
		return n.notBegun(ctx, b, err)
	}
	e.Env = slices.Concat(e.Env, need.environment(b, environment(b, e.Env)))
	c := n.compilation(b, e, need)
	defer c.close()
	place, err := n.park(ctx, b, m, e, need.warm)
	if err != nil {
		return n.notBegun(ctx, b, err)
	}
	defer n.engine.watcher.ExecPlaced(n.engine.name(n.engine.whose(m.Handle())))()
	o, err := n.runIn(ctx, b, place, c, e, out, began)
	o.Timings.DepsMS, o.DepsResolved = ms(need.took), need.resolved
	o.Timings.PrepareMS = max(0, o.Timings.PrepareMS-o.Timings.DepsMS)
	return o, err
}

// runIn runs a program in its place, and closes that.
func (n *Node) runIn(ctx context.Context, b *box, place engine.Exec, c *compilation, e service.ExecSpec, out service.Streams, began time.Time) (service.ExecOutcome, error) {
	defer place.Close()
	x := &execution{place: place, compile: c, id: e.ID, stays: e.Background, talks: e.Terminal != nil, told: out.Started, done: make(chan struct{}), stopped: make(chan struct{})}
	defer close(x.done)
	if err := n.admit(b, x); err != nil {
		return service.ExecOutcome{}, err
	}
	defer b.dismiss(x)
	defer context.AfterFunc(ctx, func() { x.end(endCancelled) })()
	return x.run(ctx, b, e, out, began)
}

// resume follows a program in the background that a former daemon ran.
func (n *Node) resume(ctx context.Context, b *box, e service.ExecSpec, out service.Streams) (service.ExecOutcome, error) {
	m, err := b.itsMachine()
	if err != nil {
		return n.notBegun(ctx, b, err)
	}
	dials, cancel := n.bounded(context.WithoutCancel(ctx), agentTime) // a cancel kills the program, which takes its place
	defer cancel()
	place, err := m.Resume(dials, e.ID)
	if err != nil {
		return n.notBegun(ctx, b, err)
	}
	defer n.engine.watcher.ExecPlaced(n.engine.name(n.engine.whose(m.Handle())))()
	o, err := n.runIn(ctx, b, place, nil, e, out, time.Now())
	if sandbox.CodeOf(err) == sandbox.NotFound {
		err = sandbox.Errorf(sandbox.Lost, err, "the server was restarted while the program ran, and its end is not known")
	}
	return o, err
}

func (n *Node) park(ctx context.Context, b *box, m engine.Machine, e service.ExecSpec, warm *agent.Warm) (_ engine.Exec, err error) {
	ctx, part := phase.Begin(ctx, "park")
	defer func() { part.End(err) }()
	ctx, cancel := n.bounded(ctx, agentTime)
	defer cancel()
	return m.Park(ctx, engine.ExecSpec{ID: e.ID, User: cmp.Or(e.User, b.spec.Security.User), Limits: e.Limits, Warm: warm, Stays: e.Background})
}

// notBegun is the answer of an exec that came to nothing with err: where it was cut off, by whom.
func (n *Node) notBegun(ctx context.Context, b *box, err error) (service.ExecOutcome, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.gone:
		err = notFound()
	case n.ctx.Err() != nil:
		err = stopping()
	case ctx.Err() != nil:
		return service.ExecOutcome{Reason: sandbox.Cancelled, ExitCode: 137, Signal: "SIGKILL", Start: "cold"}, nil
	}
	return service.ExecOutcome{}, err
}

// admit notes a program that is about to run, so that Delete and Close end it; theirs is the word if they came first.
func (n *Node) admit(b *box, x *execution) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case b.gone:
		return notFound()
	case n.closed:
		return stopping()
	}
	b.running[x] = true
	return nil
}

func (b *box) dismiss(x *execution) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, x)
}

// machineFor gives the machine of a stateful sandbox, or a clean one of an ephemeral one: the one made ahead, if its
// limits are the exec's, else a fresh one.
func (n *Node) machineFor(ctx context.Context, b *box, e service.ExecSpec, x needs) (engine.Machine, error) {
	b.mu.Lock()
	if b.spec.Mode == sandbox.Stateful {
		b.mu.Unlock()
		return b.itsMachine()
	}
	// An interpreter leaves traces: a program that can't use the one that runs gets a machine in which none was ever started.
	if x.fresh() || b.ahead != nil && !reflect.DeepEqual(b.ahead, x.warm) {
		b.mu.Unlock()
		return n.start(ctx, b, e.Limits, x)
	}
	m := b.machine
	b.machine, b.ahead = nil, nil
	b.mu.Unlock()
	if m != nil {
		if fits(b.spec.Limits, e.Limits) && alive(m) {
			return m, nil
		}
		n.end(m)
	}
	return n.start(ctx, b, e.Limits, x)
}

// itsMachine is that of a stateful sandbox. Errors: SandboxStopped, Lost.
func (b *box) itsMachine() (engine.Machine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.machine != nil:
		return b.machine, nil
	case b.status == sandbox.Stopped:
		return nil, sandbox.Errorf(sandbox.SandboxStopped, nil, "the sandbox is stopped; start it first")
	}
	return nil, sandbox.Errorf(sandbox.Lost, nil, "the sandbox's machine was lost; start the sandbox again, its files are kept")
}

func alive(m interface{ Dead() <-chan struct{} }) bool {
	select {
	case <-m.Dead():
		return false
	default:
		return true
	}
}

func fits(a, b sandbox.Limits) bool {
	return a.MemoryMB == b.MemoryMB && a.CPUCores == b.CPUCores && a.DiskMB == b.DiskMB && a.Pids == b.Pids
}

// answer is what came of running a program.
type answer struct {
	exit  agent.Exit
	files []agent.File
	err   error
}

func (x *execution) run(ctx context.Context, b *box, e service.ExecSpec, out service.Streams, began time.Time) (service.ExecOutcome, error) {
	o := service.ExecOutcome{Start: "cold", Isolation: x.place.Isolation()}
	if x.place.Warm() {
		o.Start = "warm"
	}
	o.Isolation.Requested = nil
	output := newTap(out)
	feed := agent.Feed{
		Stdout: output.stdout(), Stderr: output.stderr(),
		Started: func() { x.starts(time.Duration(e.Limits.TimeoutMS) * time.Millisecond) }, Exited: x.exits,
	}
	switch {
	case out.Stdin != nil:
		feed.Stdin = out.Stdin
	case len(e.Stdin) > 0:
		feed.Stdin = bytes.NewReader(e.Stdin)
	}
	for _, f := range e.Files {
		feed.Files = append(feed.Files, agent.File(f))
	}
	run := program(b, e)
	if e.Resume != nil {
		feed.Resume, output.counts = &agent.Resume{Name: e.ID, At: *e.Resume}, *e.Resume
	} else {
		x.compile.use(&run, &feed)
	}
	x.mu.Lock()
	x.within(agentTime, endStuck)
	x.mu.Unlock()
	got := make(chan answer, 1)
	sent := time.Now()
	go func() {
		defer func() { // it reads what an agent sends
			if p := recover(); p != nil {
				got <- answer{err: sandbox.Errorf(sandbox.Lost, fmt.Errorf("panic: %v\n%s", p, debug.Stack()), "the machine was lost; try again")}
			}
		}()
		exit, files, err := x.place.Run(run, feed)
		got <- answer{exit, files, err}
	}()
	a, answered := x.await(got)
	output.close()
	started, exited := x.times()
	phase.Past(ctx, "send", sent, started)
	phase.Past(ctx, "run", started, exited)
	phase.Past(ctx, "collect", exited, time.Now())
	switch x.ended() {
	case endLost:
		return o, sandbox.Errorf(sandbox.Lost, nil, "the server stopped while the program ran: try again")
	case endStuck:
		return o, sandbox.Errorf(sandbox.Lost, nil, "the machine did not answer in %s: try again", agentTime)
	}
	var failed error
	if answered && a.err != nil && x.ended() == endNone {
		if sandbox.CodeOf(a.err) != sandbox.CollectTooLarge { // else how the program ended is known
			return o, a.err
		}
		failed, a.err, a.files = a.err, nil, nil
	}
	if !answered || a.err != nil { // killed, and nothing more to be heard of it
		a.exit = agent.Exit{Code: 137, Signal: int(unix.SIGKILL), StdoutBytes: output.counts[0], StderrBytes: output.counts[1]}
	}
	x.conclude(&o, a)
	o.Timings.PrepareMS, o.Timings.RunMS = ms(started.Sub(began)), ms(exited.Sub(started))
	o.DurationMS = ms(time.Since(began))
	return o, failed
}

// await waits for the answer, and for a killed program no longer than a moment.
func (x *execution) await(got <-chan answer) (answer, bool) {
	select {
	case a := <-got:
		return a, true
	case <-x.stopped:
	}
	select {
	case a := <-got:
		return a, true
	case <-time.After(grace):
		return answer{}, false
	}
}

// conclude says how the program ended, in the contract's terms.
func (x *execution) conclude(o *service.ExecOutcome, a answer) {
	usage, oom := x.place.Usage()
	o.Usage = usage
	o.ExitCode, o.Reason = a.exit.Code, sandbox.Exited
	o.StdoutBytes, o.StderrBytes = a.exit.StdoutBytes, a.exit.StderrBytes
	if a.exit.Signal != 0 {
		o.Reason, o.Signal = sandbox.Signaled, unix.SignalName(unix.Signal(a.exit.Signal))
		if o.Signal == "" {
			o.Signal = "SIGRTMIN" // real-time signals have no names of their own
		}
	}
	switch why := x.ended(); {
	case oom:
		o.ExitCode, o.Reason, o.Signal = 137, sandbox.OOMKilled, "SIGKILL"
	case why == endDeadline:
		o.ExitCode, o.Reason = 124, sandbox.TimedOut
	case why == endCancelled:
		o.Reason = sandbox.Cancelled
	}
	for _, f := range a.files {
		o.Files = append(o.Files, service.File(f))
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func program(b *box, e service.ExecSpec) agent.Run {
	r := agent.Run{Argv: e.Command, Args: e.Args, Env: environment(b, e.Env), Dir: e.WorkingDir, MaxOutput: e.MaxOutputBytes, Collect: e.Collect}
	if e.Background {
		r.Stays = e.ID
	}
	if e.Terminal != nil {
		r.Terminal = &agent.Control{Cols: e.Terminal.Cols, Rows: e.Terminal.Rows}
	}
	if r.Dir == "" {
		r.Dir = b.spec.WorkingDir
	}
	if e.Code != nil {
		languages[languageOf(b, e)].code(&r, e.Code)
	}
	return r
}

// tap passes output on until it is closed: an answer may leave before a hanging program's pipes do.
type tap struct {
	out    service.Streams
	mu     sync.Mutex
	closed bool
	counts [2]int64
}

func newTap(out service.Streams) *tap { return &tap{out: out} }

func (t *tap) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

type tapWriter struct {
	t *tap
	i int
}

func (t *tap) stdout() io.Writer { return tapWriter{t, 0} }
func (t *tap) stderr() io.Writer { return tapWriter{t, 1} }

var errClosed = errors.New("the exec has been answered")

func (w tapWriter) Write(b []byte) (int, error) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	if w.t.closed {
		return 0, errClosed
	}
	w.t.counts[w.i] += int64(len(b))
	if w.i == 0 {
		return w.t.out.Stdout.Write(b)
	}
	return w.t.out.Stderr.Write(b)
}
