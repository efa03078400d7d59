package server

import (
	"context"
	"net/http"
	"slices"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

var jobParams = append(paging(service.JobSorts),
	param{name: "status", enum: []string{"queued", "running", "succeeded", "failed", "cancelled", "timed_out"}},
	param{name: "sandbox_id", doc: "jobs in that sandbox alone"})

func (s *Server) submitJob(c *call) (any, error) {
	var r sandbox.JobRequest
	faults, err := c.decode(&r)
	if err != nil {
		return nil, err
	}
	return s.svc.Submit(c.ctx, c.caller, c.namespace, r, faults)
}

func (s *Server) listJobs(c *call) (any, error) {
	q, faults := readQuery(c.rawQuery, jobParams)
	query := service.JobQuery{Namespace: c.namespace, Status: q.Get("status"), SandboxID: q.Get("sandbox_id"), Paging: readPaging(q, &faults)}
	if err := faults.Err(sandbox.Invalid); err != nil {
		return nil, err
	}
	return s.svc.ListJobs(c.ctx, query)
}

func (s *Server) getJob(c *call) (any, error) { return s.svc.Job(c.ctx, c.namespace, c.id) }

func (s *Server) cancelJob(c *call) (any, error) { return s.svc.CancelJob(c.ctx, c.namespace, c.id) }

func (s *Server) callbackKey(c *call) (any, error) { return s.svc.CallbackKey(c.namespace), nil }

var jobOutputParams = append(slices.Clip(outputParams),
	param{name: "attempt", doc: "the X-Attempt that offset is of; the output of another is given from its beginning"})

// jobOutput gives what there is of a stream of a job's last attempt.
func (s *Server) jobOutput(c *call, w http.ResponseWriter) error {
	return s.output(c, w, jobOutputParams, func(ctx context.Context, stream string, seen service.Seen, until time.Time) (service.JobLog, error) {
		return s.svc.JobOutput(ctx, c.namespace, c.id, stream, seen, until)
	})
}
