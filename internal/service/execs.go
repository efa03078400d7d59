package service

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"sync"
	"time"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/internal/spool"
	"outpost.run/outpost/sandbox"
)

// What is kept of execs that have ended.
const (
	keepExec       = 10 * time.Minute
	keepExecs      = 5000      // of one namespace
	keepExecMemory = 256 << 20 // bytes of all
	costOfExec     = 2 << 10   // bytes of memory beside its output, about
)

// Output is one stream of an exec: readers follow it at their own pace.
type Output = spool.Log

// Running is an exec that has a record: it waits, runs, or has ended not long ago.
type Running struct {
	ID, SandboxID  string
	Stdout, Stderr *Output
	Begun          <-chan struct{} // tells once that the program has started
	Done           <-chan struct{} // closed when it has ended
	Base64         bool            // its client wants output so
	Background     bool            // its call is answered when it has started
}

func (r *Running) stream(name string) *Output {
	if name == sandbox.Stderr {
		return r.Stderr
	}
	return r.Stdout
}

// exec is the record of one.
type exec struct {
	Running
	namespace string
	fresh     bool // in a machine that is in no list (execute)
	started   sandbox.Time
	most      int // bytes of each stream in the result
	cancel    context.CancelFunc
	begun     chan struct{}
	done      chan struct{}

	// Set before done is closed:
	ended  time.Time
	result sandbox.ExecResult // without output
	err    error              // it came to nothing
}

// execs are the records.
type execs struct {
	spool *spool.Spool
	most  int64 // bytes kept of each stream

	mu     sync.Mutex
	byID   map[string]*exec
	in     map[string][]*exec // by sandbox
	ended  map[string]*past   // by namespace
	memory int                // of all that have ended, in bytes
}

// past are the execs of a namespace that have ended, in the order of their ends, and what they cost in bytes.
type past struct {
	all            []*exec
	memory, output int
}

func newExecs(s *spool.Spool, most int64) *execs {
	return &execs{spool: s, most: most, byID: map[string]*exec{}, in: map[string][]*exec{}, ended: map[string]*past{}}
}

// open makes the record of an exec that cancel ends; fresh: in a machine that is in no list.
func (x *execs) open(namespace, sandboxID string, fresh bool, spec ExecSpec, p policy.Exec, cancel context.CancelFunc) *exec {
	e := &exec{
		namespace: namespace, fresh: fresh, started: sandbox.Now(), most: p.MaxOutputBytes,
		cancel: cancel, begun: make(chan struct{}, 1), done: make(chan struct{}),
	}
	e.Running = Running{
		ID: spec.ID, SandboxID: sandboxID, Stdout: x.spool.New(namespace, spec.MaxOutputBytes), Stderr: x.spool.New(namespace, spec.MaxOutputBytes),
		Begun: e.begun, Done: e.done, Base64: p.Base64Output, Background: p.Background,
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[e.ID] = e
	x.in[sandboxID] = append(x.in[sandboxID], e)
	return e
}

// abandon closes what nobody did: a bug ended its call.
func (x *execs) abandon(e *exec) {
	select {
	case <-e.done:
	default:
		x.close(e, sandbox.ExecResult{}, errors.New("the exec's call failed"))
	}
}

// close notes how an exec ended; one that came to nothing is forgotten, unless its client hears of that by the record alone.
func (x *execs) close(e *exec, result sandbox.ExecResult, err error) {
	e.Stdout.End()
	e.Stderr.End()
	x.mu.Lock()
	defer x.mu.Unlock()
	e.ended, e.result, e.err = time.Now(), result, err
	close(e.done)
	if err != nil && !e.Background {
		x.drop(e)
		return
	}
	of := x.ended[e.namespace]
	if of == nil {
		of = &past{}
		x.ended[e.namespace] = of
	}
	of.all = append(of.all, e)
	of.memory, of.output, x.memory = of.memory+e.memory(), of.output+e.output(), x.memory+e.memory()
	if len(of.all) > keepExecs {
		x.forget(of.all[0])
	}
	for x.memory > keepExecMemory && x.dropFirst(func(p *past) int { return p.memory }) {
	}
	for x.spool.Full() && x.dropFirst(func(p *past) int { return p.output }) {
	}
}

func (e *exec) memory() int { return costOfExec + e.Stdout.Memory() + e.Stderr.Memory() }

// output is how many bytes are kept of it.
func (e *exec) output() int {
	stdout, _, _ := e.Stdout.State()
	stderr, _, _ := e.Stderr.State()
	return int(stdout + stderr)
}

// dropFirst forgets the oldest exec of the namespace whose cost is highest; false where there is none.
func (x *execs) dropFirst(cost func(*past) int) bool {
	var which *past
	for _, p := range x.ended {
		if which == nil || cost(p) > cost(which) {
			which = p
		}
	}
	if which == nil {
		return false
	}
	x.forget(which.all[0])
	return true
}

// forget removes the record of an exec that has ended.
func (x *execs) forget(e *exec) {
	if of := x.ended[e.namespace]; of != nil {
		if i := slices.Index(of.all, e); i >= 0 {
			of.all = slices.Delete(of.all, i, i+1)
			of.memory, of.output, x.memory = of.memory-e.memory(), of.output-e.output(), x.memory-e.memory()
		}
		if len(of.all) == 0 {
			delete(x.ended, e.namespace)
		}
	}
	x.drop(e)
}

func (x *execs) drop(e *exec) {
	delete(x.byID, e.ID)
	if rest := slices.DeleteFunc(x.in[e.SandboxID], func(other *exec) bool { return other == e }); len(rest) > 0 {
		x.in[e.SandboxID] = rest
	} else {
		delete(x.in, e.SandboxID)
	}
	e.Stdout.Drop()
	e.Stderr.Drop()
}

// discard forgets an exec of whose end its client has heard.
func (x *execs) discard(e *exec) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(e)
}

// expire forgets what ended before a moment.
func (x *execs) expire(before time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, of := range x.ended {
		for len(of.all) > 0 && of.all[0].ended.Before(before) {
			x.forget(of.all[0])
		}
	}
}

// forgetOf forgets the ended execs of a sandbox that is gone.
func (x *execs) forgetOf(sandboxID string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range slices.Clone(x.in[sandboxID]) {
		if !e.ended.IsZero() {
			x.forget(e)
		}
	}
}

// find gives the record of a sandbox's exec, nil for none.
func (x *execs) find(namespace, sandboxID, id string) *exec {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.byID[id]
	if e == nil || e.namespace != namespace || e.SandboxID != sandboxID {
		return nil
	}
	return e
}

// of are the records of a sandbox, the oldest first.
func (x *execs) of(namespace, sandboxID string) []*exec {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []*exec
	for _, e := range x.in[sandboxID] {
		if e.namespace == namespace {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *exec) int {
		return cmp.Or(a.started.Compare(b.started.Time), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// state is the exec as it is now, without its result's output unless with is set.
func (e *exec) state(with bool) sandbox.ExecState {
	st := sandbox.ExecState{ID: e.ID, SandboxID: e.SandboxID, Status: sandbox.ExecRunning, Background: e.Background, StartedAt: e.started}
	select {
	case <-e.done:
	default:
		return st
	}
	st.Status = sandbox.ExecFinished
	at := sandbox.At(e.ended)
	st.FinishedAt = &at
	if e.err == nil {
		code := e.result.ExitCode
		st.ExitCode = &code
	}
	switch {
	case e.err != nil:
		st.Error = BodyOf(e.err)
	case with:
		r := e.whole()
		st.Result = &r
	}
	return st
}

// whole is the result with its output.
func (e *exec) whole() sandbox.ExecResult {
	r := e.result
	r.Stdout = e.shown(e.Stdout, r.StdoutTruncated)
	r.Stderr = e.shown(e.Stderr, r.StderrTruncated)
	return r
}

// shown is output as it stands in the result. A character that the limit cut in two is left out.
func (e *exec) shown(log *Output, truncated bool) string {
	b := log.Head(e.most)
	switch {
	case e.Base64:
		return base64.StdEncoding.EncodeToString(b)
	case truncated:
		b = WholeCharacters(b)
	}
	return Text(b)
}

// BodyOf is an error as it travels within an answer.
func BodyOf(err error) *sandbox.ErrorBody {
	if e, is := errors.AsType[*sandbox.Error](err); is {
		return &sandbox.ErrorBody{Code: e.Code, Message: e.Message, Details: e.Details}
	}
	return &sandbox.ErrorBody{Code: sandbox.Internal, Message: "the server failed; its log says more"}
}

// findExec gives the record of an exec of a sandbox that is there, or of a fresh machine. Errors: NotFound.
func (s *Service) findExec(namespace, sandboxID, id string) (*exec, error) {
	e := s.execs.find(namespace, sandboxID, id)
	if e == nil || !e.fresh {
		if _, _, err := s.find(namespace, sandboxID); err != nil {
			return nil, err
		}
	}
	if e == nil {
		return nil, sandbox.Errorf(sandbox.NotFound, nil, "the sandbox has no such exec, or it ended over %d minutes ago", int(keepExec.Minutes()))
	}
	return e, nil
}

// ExecState is an exec with its result, if it has one. Errors: NotFound.
func (s *Service) ExecState(namespace, sandboxID, id string) (sandbox.ExecState, error) {
	e, err := s.findExec(namespace, sandboxID, id)
	if err != nil {
		return sandbox.ExecState{}, err
	}
	return e.state(true), nil
}

// ExecSorts are the fields that execs can be sorted by.
var ExecSorts = []string{"started_at", "id", "status"}

// ListExecs gives a page of a sandbox's execs, without their results. Errors: NotFound.
func (s *Service) ListExecs(namespace, sandboxID string, p Paging) (sandbox.Page[sandbox.ExecState], error) {
	if _, _, err := s.find(namespace, sandboxID); err != nil {
		return sandbox.Page[sandbox.ExecState]{}, err
	}
	var rows []sandbox.ExecState
	for _, e := range s.execs.of(namespace, sandboxID) {
		rows = append(rows, e.state(false))
	}
	slices.SortStableFunc(rows, func(a, b sandbox.ExecState) int {
		switch p.Sort {
		case "id":
			return cmp.Compare(a.ID, b.ID)
		case "status":
			return cmp.Compare(a.Status, b.Status)
		}
		return a.StartedAt.Compare(b.StartedAt.Time)
	})
	if p.Descending {
		slices.Reverse(rows)
	}
	total := len(rows)
	from := min(total, (p.Page-1)*p.PerPage)
	return sandbox.NewPage(rows[from:min(total, from+p.PerPage)], p.Page, p.PerPage, total), nil
}

// CancelExec kills an exec's program and answers its state, ended if that took no longer than a moment.
//
// Errors: NotFound, AlreadyFinished.
func (s *Service) CancelExec(ctx context.Context, namespace, sandboxID, id string) (sandbox.ExecState, error) {
	e, err := s.findExec(namespace, sandboxID, id)
	if err != nil {
		return sandbox.ExecState{}, err
	}
	if e.state(false).Status == sandbox.ExecFinished {
		return sandbox.ExecState{}, sandbox.Errorf(sandbox.AlreadyFinished, nil, "the exec has ended already")
	}
	e.cancel()
	select {
	case <-e.Done:
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return e.state(true), nil
}

// ExecOutput is a stream of an exec: stdout or stderr. Errors: NotFound.
func (s *Service) ExecOutput(namespace, sandboxID, id, stream string) (*Output, error) {
	e, err := s.findExec(namespace, sandboxID, id)
	if err != nil {
		return nil, err
	}
	return e.stream(stream), nil
}
