package service

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"strings"
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
	fresh     bool      // in a machine that is in no list (execute)
	note      *ExecNote // what is kept of it for the next server; nil: nothing
	command   string    // in short
	started   sandbox.Time
	most      int // bytes of each stream in the result
	cancel    context.CancelFunc
	detached  bool   // its program runs on without this server; only its own goroutine reads it
	input     *input // nil: no more comes than the request had
	begun     chan struct{}
	done      chan struct{}

	// Set before done is closed:
	ended  time.Time
	result sandbox.ExecResult // without output; it has no ID where the program's end is not known
	err    error              // it came to nothing, or its files could not be collected
}

// execs are the records.
type execs struct {
	spool *spool.Spool
	most  int64 // bytes kept of each stream
	store Store
	log   *slog.Logger

	mu     sync.Mutex
	byID   map[string]*exec
	in     map[string][]*exec // by sandbox
	ended  map[string]*past   // by namespace
	memory int                // of all that have ended, in bytes
	gone   []*exec            // dropped by who has the lock, which removes what they have on the disk when it lets go of it
}

// unlock lets go of mu.
func (x *execs) unlock() {
	gone := x.gone
	x.gone = nil
	x.mu.Unlock()
	for _, e := range gone {
		for _, l := range []*Output{e.Stdout, e.Stderr} {
			if err := l.Close(); err != nil {
				x.log.Error("the output of an exec could not be removed", "exec_id", e.ID, "error", err)
			}
		}
		if e.note != nil {
			x.unnote(e.ID)
		}
	}
}

// past are the execs of a namespace that have ended, in the order of their ends, and what they cost in bytes.
type past struct {
	all           []*exec
	memory, filed int
}

func newExecs(s *spool.Spool, most int64, store Store, log *slog.Logger) *execs {
	return &execs{spool: s, most: most, store: store, log: log, byID: map[string]*exec{}, in: map[string][]*exec{}, ended: map[string]*past{}}
}

// open makes the record of an exec that cancel ends; fresh: in a machine that is in no list.
func (x *execs) open(namespace, sandboxID string, fresh bool, spec ExecSpec, p policy.Exec, cancel context.CancelFunc) *exec {
	e := &exec{namespace: namespace, fresh: fresh, started: sandbox.Now(), most: p.MaxOutputBytes, cancel: cancel, command: inShort(spec.Code, spec.Command)}
	if p.StdinOpen {
		e.input = newInput(p.Stdin)
	}
	e.Running = Running{ID: spec.ID, SandboxID: sandboxID, Base64: p.Base64Output, Background: p.Background}
	return x.add(e, spec.MaxOutputBytes)
}

// mostInShort is how many characters there are of what runs, in its record.
const mostInShort = 120

// inShort is what runs, in one line.
func inShort(code *string, command []string) string {
	text := strings.Join(command, " ")
	if code != nil {
		text = *code
	}
	text = strings.ToValidUTF8(text[:min(len(text), 4*mostInShort)], "")
	line, _, _ := strings.Cut(strings.TrimLeft(text, " \t\r\n"), "\n")
	if runes := []rune(line); len(runes) > mostInShort {
		line = string(runes[:mostInShort-1]) + "…"
	}
	return line
}

// add takes a record in, whose logs keep at most so many bytes each; those of an exec in the background outlive the server.
func (x *execs) add(e *exec, most int64) *exec {
	e.begun, e.done = make(chan struct{}, 1), make(chan struct{})
	e.Begun, e.Done = e.begun, e.done
	log := func(stream string) *Output {
		if e.Background {
			return x.spool.Lasting(e.namespace, e.ID+"."+stream, most)
		}
		return x.spool.New(e.namespace, most)
	}
	e.Stdout, e.Stderr = log(sandbox.Stdout), log(sandbox.Stderr)
	x.mu.Lock()
	defer x.unlock()
	x.makeRoom(e.namespace)
	x.byID[e.ID] = e
	x.in[e.SandboxID] = append(x.in[e.SandboxID], e)
	return e
}

// restore brings back the record of an exec in the background; cancel ends one that has not ended.
func (x *execs) restore(n ExecNote, cancel context.CancelFunc) *exec {
	e := &exec{namespace: n.Namespace, note: &n, started: n.StartedAt, most: n.MaxOutputBytes, cancel: cancel, command: n.Command}
	e.Running = Running{ID: n.ID, SandboxID: n.SandboxID, Base64: n.Base64, Background: true}
	x.add(e, n.Keep)
	if n.EndedAt == nil {
		return e
	}
	var err error
	if n.Error != nil {
		err = &sandbox.Error{Code: n.Error.Code, Message: n.Error.Message, Details: n.Error.Details}
	}
	var result sandbox.ExecResult
	if n.Result != nil {
		result = *n.Result
	}
	x.closeAt(e, n.EndedAt.Time, result, err)
	return e
}

// unnote forgets what is kept for the next server.
func (x *execs) unnote(id string) {
	if err := x.store.DeleteExec(context.Background(), id); err != nil {
		x.log.Error("what is kept of an exec could not be removed", "exec_id", id, "error", err)
	}
}

// abandon closes what nobody did: a bug ended its call.
func (x *execs) abandon(e *exec) {
	if e.detached {
		return
	}
	select {
	case <-e.done:
	default:
		x.close(e, sandbox.ExecResult{}, errors.New("the exec's call failed"))
	}
}

// close notes how an exec ended; one that came to nothing is forgotten, unless its client hears of that by the record alone.
func (x *execs) close(e *exec, result sandbox.ExecResult, err error) {
	now := time.Now()
	if e.note != nil {
		n := *e.note
		n.EndedAt = new(sandbox.At(now))
		if result.ID != "" {
			n.Result = &result
		}
		if err != nil {
			n.Error = BodyOf(err)
		}
		if err := x.store.PutExec(context.Background(), n); err != nil {
			x.log.Error("the end of an exec in the background could not be noted", "exec_id", e.ID, "error", err)
		}
	}
	x.closeAt(e, now, result, err)
}

func (x *execs) closeAt(e *exec, at time.Time, result sandbox.ExecResult, err error) {
	e.input.end()
	e.Stdout.End(result.StdoutBytes)
	e.Stderr.End(result.StderrBytes)
	x.mu.Lock()
	defer x.unlock()
	e.ended, e.result, e.err = at, result, err
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
	of.memory, of.filed, x.memory = of.memory+e.memory(), of.filed+e.filed(), x.memory+e.memory()
	if len(of.all) > keepExecs {
		x.forget(of.all[0])
	}
	for x.memory > keepExecMemory {
		x.forget(x.costliest(func(p *past) int { return p.memory }).all[0])
	}
	x.makeRoom(e.namespace)
}

// makeRoom forgets execs that have output in files, for that of others: a namespace's own first.
func (x *execs) makeRoom(namespace string) {
	for x.spool.FullFor(namespace) && x.forgetFiled(x.ended[namespace]) {
	}
	for x.spool.Full() && x.forgetFiled(x.costliest(func(p *past) int { return p.filed })) {
	}
}

// forgetFiled forgets the oldest exec that has output in files; false where there is none.
func (x *execs) forgetFiled(of *past) bool {
	if of == nil || of.filed == 0 {
		return false
	}
	x.forget(of.all[slices.IndexFunc(of.all, func(e *exec) bool { return e.filed() > 0 })])
	return true
}

// memory is about what it costs in memory, in bytes, once it has ended.
func (e *exec) memory() int {
	n := costOfExec + e.Stdout.Memory() + e.Stderr.Memory()
	for name, content := range e.result.Files {
		n += len(name) + len(content)
	}
	return n
}

// filed is how many bytes of it are in files.
func (e *exec) filed() int { return int(e.Stdout.Filed() + e.Stderr.Filed()) }

// costliest is the namespace whose cost is highest, nil where nothing has ended.
func (x *execs) costliest(cost func(*past) int) (which *past) {
	for _, p := range x.ended {
		if which == nil || cost(p) > cost(which) {
			which = p
		}
	}
	return which
}

// forget removes the record of an exec that has ended.
func (x *execs) forget(e *exec) {
	if of := x.ended[e.namespace]; of != nil {
		if i := slices.Index(of.all, e); i >= 0 {
			of.all = slices.Delete(of.all, i, i+1)
			of.memory, of.filed, x.memory = of.memory-e.memory(), of.filed-e.filed(), x.memory-e.memory()
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
	x.gone = append(x.gone, e)
}

// discard forgets an exec of whose end its client has heard.
func (x *execs) discard(e *exec) {
	x.mu.Lock()
	defer x.unlock()
	x.forget(e)
}

// expire forgets what ended before a moment.
func (x *execs) expire(before time.Time) {
	x.mu.Lock()
	defer x.unlock()
	for _, of := range x.ended {
		for len(of.all) > 0 && of.all[0].ended.Before(before) {
			x.forget(of.all[0])
		}
	}
}

// forgetOf forgets the ended execs of a sandbox that is gone.
func (x *execs) forgetOf(sandboxID string) {
	x.mu.Lock()
	defer x.unlock()
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
	st := sandbox.ExecState{ID: e.ID, SandboxID: e.SandboxID, Status: sandbox.ExecRunning, Background: e.Background, Command: e.command, StartedAt: e.started}
	select {
	case <-e.done:
	default:
		return st
	}
	st.Status = sandbox.ExecFinished
	at := sandbox.At(e.ended)
	st.FinishedAt = &at
	if e.err != nil {
		st.Error = BodyOf(e.err)
	}
	if e.result.ID == "" {
		return st
	}
	code := e.result.ExitCode
	st.ExitCode = &code
	if with {
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
		return nil, sandbox.Errorf(sandbox.NotFound, nil, "the sandbox has no such exec: what is known of one is kept for %d minutes after its end, and over a restart of the server only of those in the background; its processes tell what runs", int(keepExec.Minutes()))
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
