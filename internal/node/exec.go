package node

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
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
)

// grace is how long the answer waits for a killed program to be gone: it may hang in the kernel.
const grace = 200 * time.Millisecond

const (
	prepareLimit = time.Minute      // to take the files in and start
	collectLimit = 30 * time.Second // to give the files out
)

// execution is one program that runs.
type execution struct {
	place engine.Exec
	done  chan struct{} // closed when it has answered

	mu      sync.Mutex
	timer   *time.Timer // of the phase it is in: an agent that hangs may not hold an answer back
	phases  []time.Time // when each began: preparing, running, collecting
	why     ending
	stopped chan struct{} // closed when why was set
}

// phase gives the next part of the exec its time.
func (x *execution) phase(d time.Duration, after ending) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.timer != nil {
		x.timer.Stop()
	}
	x.timer = time.AfterFunc(d, func() { x.end(after) })
	x.phases = append(x.phases, time.Now())
}

// times are how long it was prepared and ran; what never began took no time.
func (x *execution) times() (prepared, ran time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.timer.Stop()
	p := append(slices.Clone(x.phases), time.Now(), time.Now())
	return p[1].Sub(p[0]), p[2].Sub(p[1])
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
	_ = x.place.Kill()
}

func (x *execution) ended() ending {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.why
}

// Exec implements service.Runtime.
func (n *Node) Exec(ctx context.Context, id string, e service.ExecSpec, out service.Streams) (service.ExecOutcome, error) {
	began := time.Now()
	b, err := n.box(id)
	if err != nil {
		return service.ExecOutcome{}, err
	}
	m, err := n.machineFor(ctx, b, e)
	if err != nil {
		return service.ExecOutcome{}, err
	}
	if b.spec.Mode == sandbox.Ephemeral {
		defer n.end(m)
	}
	user := e.User
	if user == "" {
		user = b.spec.Security.User
	}
	place, err := m.Park(ctx, engine.ExecSpec{ID: e.ID, User: user, Limits: e.Limits})
	if err != nil {
		return service.ExecOutcome{}, err
	}
	defer place.Close()
	x := &execution{place: place, done: make(chan struct{}), stopped: make(chan struct{})}
	defer close(x.done)
	if err := b.admit(x); err != nil {
		return service.ExecOutcome{}, err
	}
	defer b.dismiss(x)
	defer context.AfterFunc(ctx, func() { x.end(endCancelled) })()
	return x.run(b, e, out, began)
}

func (b *box) admit(x *execution) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return notFound()
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
func (n *Node) machineFor(ctx context.Context, b *box, e service.ExecSpec) (engine.Machine, error) {
	b.mu.Lock()
	if b.spec.Mode == sandbox.Stateful {
		defer b.mu.Unlock()
		if b.machine == nil {
			return nil, sandbox.Errorf(sandbox.Lost, nil, "the sandbox's machine was lost with the host: delete the sandbox and create it anew")
		}
		return b.machine, nil
	}
	m := b.machine
	b.machine = nil
	b.mu.Unlock()
	if m != nil {
		if fits(b.spec.Limits, e.Limits) && alive(m) {
			return m, nil
		}
		n.end(m)
	}
	if len(b.image.Layers) == 0 { // known from before a restart
		img, err := n.image(ctx, b.spec.Image, b.spec.CreateWait)
		if err != nil {
			return nil, err
		}
		b.mu.Lock()
		b.image = img
		b.mu.Unlock()
	}
	return n.start(ctx, b, e.Limits)
}

func alive(m engine.Machine) bool {
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

func (x *execution) run(b *box, e service.ExecSpec, out service.Streams, began time.Time) (service.ExecOutcome, error) {
	o := service.ExecOutcome{Start: "cold", Isolation: x.place.Isolation()}
	o.Isolation.Requested = nil
	before := time.Since(began)
	x.phase(prepareLimit, endLost)
	output := newTap(out)
	feed := agent.Feed{
		Stdin: e.Stdin, Stdout: output.stdout(), Stderr: output.stderr(),
		Started: func() { x.phase(time.Duration(e.Limits.TimeoutMS)*time.Millisecond, endDeadline) },
		Exited:  func() { x.phase(collectLimit, endLost) },
	}
	for _, f := range e.Files {
		feed.Files = append(feed.Files, agent.File(f))
	}
	got := make(chan answer, 1)
	go func() {
		exit, files, err := x.place.Run(program(b, e), feed)
		got <- answer{exit, files, err}
	}()
	a, answered := x.await(got)
	output.close()
	prepared, ran := x.times()
	if x.ended() == endLost {
		return o, sandbox.Errorf(sandbox.Lost, nil, "the server stopped, or lost the machine, while the program ran: try again")
	}
	if answered && a.err != nil && x.ended() == endNone {
		return o, a.err
	}
	if !answered || a.err != nil { // killed, and nothing more to be heard of it
		a.exit = agent.Exit{Code: 137, Signal: int(unix.SIGKILL), StdoutBytes: output.counts[0], StderrBytes: output.counts[1]}
	}
	x.conclude(&o, a)
	o.Timings.PrepareMS, o.Timings.RunMS = ms(before+prepared), ms(ran)
	o.DurationMS = ms(time.Since(began))
	return o, nil
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
	r := agent.Run{Code: e.Code, Argv: e.Command, Args: e.Args, Env: environment(b, e.Env), Dir: e.WorkingDir, MaxOutput: e.MaxOutputBytes, Collect: e.Collect}
	if r.Dir == "" {
		r.Dir = b.spec.WorkingDir
	}
	if e.Code != nil {
		name := e.Language
		if name == "" {
			name = b.spec.Language
		}
		r.Interpreter, r.FileName = languages[name].interpreter, languages[name].file
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
