package service

import (
	"context"
	"encoding/base64"
	"net"
	"net/netip"
	"time"

	"outpost.run/outpost/internal/phase"
	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// Submit puts a program on the queue. What Exec or Execute would refuse at once is refused here.
//
// Errors: those of the checks of Exec and Execute; Invalid; QuotaExceeded, Capacity (the queue is full); ShuttingDown.
func (s *Service) Submit(ctx context.Context, by Caller, namespace string, r sandbox.JobRequest, faults sandbox.Faults) (sandbox.Job, error) {
	j := JobSpec{ID: sandbox.NewID(sandbox.JobPrefix), Namespace: namespace, By: by, Request: r.ExecuteRequest, MaxAttempts: 1, Command: inShort(r.Code, r.Command)}
	if r.MaxAttempts != nil {
		j.MaxAttempts = *r.MaxAttempts
	}
	if r.Priority != nil {
		j.Priority = *r.Priority
	}
	if r.CallbackURL != nil {
		j.CallbackURL = *r.CallbackURL
		policy.CheckCallback(j.CallbackURL, s.policy.CallbackAllow, &faults)
	}
	if r.Background != nil && *r.Background {
		faults.Add("background", "a job is in the background anyway; leave it out")
	}
	if r.StdinOpen != nil && *r.StdinOpen {
		faults.Add("stdin_open", "nobody is connected to a job; give it its whole input as stdin")
	}
	if r.OnDisconnect != nil {
		faults.Add("on_disconnect", "nobody is connected to a job; leave it out")
	}
	if err := s.checkJob(by, namespace, r.ExecuteRequest, faults); err != nil {
		return sandbox.Job{}, err
	}
	done, err := s.begin()
	if err != nil {
		return sandbox.Job{}, err
	}
	defer done()
	return s.queue.Submit(context.WithoutCancel(ctx), j)
}

// checkJob refuses what no attempt could run.
func (s *Service) checkJob(by Caller, namespace string, r sandbox.ExecuteRequest, faults sandbox.Faults) error {
	if r.SandboxID == nil {
		_, _, err := s.checkFresh(by, r, faults)
		return err
	}
	policy.ExecutesElsewhere(r, &faults)
	_, record, err := s.find(namespace, *r.SandboxID)
	if err != nil {
		return err
	}
	_, err = s.policy.Exec(r.Exec(), record.Language, record.ResourceLimits, faults)
	return err
}

// runJob makes one attempt at a job.
func (s *Service) runJob(ctx context.Context, j JobSpec) JobOutcome {
	ctx, attempt := phase.Root(ctx, s.tracer, "job attempt")
	attempt.Note("job_id", j.ID)
	attempt.Note("namespace", j.Namespace)
	defer func() {
		s.mu.Lock()
		delete(s.attempts, j.ID)
		s.mu.Unlock()
	}()
	result, _, err := s.Execute(ctx, j.By, j.Namespace, j.Request, nil, How{Begins: func(run *Running) {
		s.mu.Lock()
		s.attempts[j.ID] = jobAttempt{run, j.Attempt}
		s.mu.Unlock()
	}})
	attempt.End(err)
	return JobOutcome{Result: result, Err: err}
}

// Job gives a job with its result. Error: NotFound.
func (s *Service) Job(ctx context.Context, namespace, id string) (sandbox.Job, error) {
	j, _, err := s.queue.Job(ctx, namespace, id)
	return j, err
}

// ListJobs gives a page of jobs, without their results.
func (s *Service) ListJobs(ctx context.Context, q JobQuery) (sandbox.Page[sandbox.Job], error) {
	rows, total, err := s.queue.Jobs(ctx, q)
	return sandbox.NewPage(rows, q.Page, q.PerPage, total), err
}

// CancelJob ends a job in any state. Errors: NotFound, AlreadyFinished.
func (s *Service) CancelJob(ctx context.Context, namespace, id string) (sandbox.Job, error) {
	return s.queue.Cancel(ctx, namespace, id)
}

// CallbackAllowed says whether a callback may be sent to an address; own are the host's, allow are blocks that the operator opened.
func CallbackAllowed(a netip.Addr, own []net.Addr, allow []netip.Prefix) bool {
	return policy.CallbackAllowed(a, own, allow)
}

// CallbackKey is what a namespace's callbacks are signed with.
func (s *Service) CallbackKey(namespace string) sandbox.CallbackKey {
	return sandbox.CallbackKey{Key: s.queue.CallbackKey(namespace)}
}

// jobAttempt is one that runs.
type jobAttempt struct {
	run    *Running
	number int
}

// JobLog is what there is of a stream of a job.
type JobLog struct {
	*Output
	Attempt int  // whose output it is; 0: none began
	Ended   bool // the job has: no other attempt follows
}

// Seen is what somebody has of a stream of a job: so many bytes of an attempt's, 0: of whichever there is.
type Seen struct {
	Attempt int
	Offset  int64
}

func (l JobLog) unseen(s Seen) bool {
	kept, _, _ := l.State()
	return kept > s.Offset || s.Attempt > 0 && l.Attempt > s.Attempt
}

// jobLook is how often a job is looked at for whom waits for its output, before it runs.
const jobLook = 100 * time.Millisecond

// JobOutput is a stream of the attempt of a job that runs, or else ran last. To who has seen all of that it gives the next, for which it
// waits as long as ctx and until let it. Error: NotFound.
func (s *Service) JobOutput(ctx context.Context, namespace, id, stream string, seen Seen, until time.Time) (JobLog, error) {
	for last := (JobLog{Output: &Output{}}); ; {
		status, resultOf, err := s.queue.State(context.WithoutCancel(ctx), namespace, id)
		if err != nil {
			return JobLog{}, err
		}
		if resultOf != last.Attempt || status.Ended() {
			j, spec, err := s.queue.Job(context.WithoutCancel(ctx), namespace, id)
			if err != nil {
				return JobLog{}, err
			}
			if again, same, err := s.queue.State(context.WithoutCancel(ctx), namespace, id); err != nil || again != status || same != resultOf {
				continue // another attempt ended meanwhile: the result is of that
			}
			last = JobLog{s.keptOutput(j, spec, stream), resultOf, status.Ended()}
			if resultOf < seen.Attempt { // that of a later one is lost
				last.Output = s.execs.spool.Ended(nil, 0)
			}
		}
		s.mu.Lock()
		now := s.attempts[id]
		s.mu.Unlock()
		switch {
		case now.run != nil && !last.Ended:
			return JobLog{now.run.stream(stream), now.number, false}, nil
		case last.Ended || last.unseen(seen) || time.Now().After(until) || ctx.Err() != nil:
			return last, nil
		}
		select {
		case <-time.After(jobLook):
		case <-ctx.Done():
		}
	}
}

// keptOutput is the output of a job that has ended: the whole while its exec is kept, then what its result has.
func (s *Service) keptOutput(j sandbox.Job, spec JobSpec, stream string) *Output {
	if j.Result == nil {
		return s.execs.spool.Ended(nil, 0)
	}
	if e := s.execs.find(j.Namespace, j.Result.SandboxID, j.Result.ID); e != nil {
		return e.stream(stream)
	}
	text, cut, total := j.Result.Stdout, j.Result.StdoutTruncated, j.Result.StdoutBytes
	if stream == sandbox.Stderr {
		text, cut, total = j.Result.Stderr, j.Result.StderrTruncated, j.Result.StderrBytes
	}
	kept := []byte(text)
	if e := spec.Request.OutputEncoding; e != nil && *e == "base64" {
		kept, _ = base64.StdEncoding.DecodeString(text) // we encoded it
	}
	if !cut { // as text it may be longer than it was
		total = int64(len(kept))
	}
	return s.execs.spool.Ended(kept, total)
}
