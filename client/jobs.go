package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"outpost.run/outpost/sandbox"
)

func (c *Client) jobs(elements ...string) string {
	return c.inNamespace(append([]string{"jobs"}, elements...)...)
}

// Submit puts a program on the queue; once this returns it will run, whatever becomes of the server.
func (c *Client) Submit(ctx context.Context, r sandbox.JobRequest) (sandbox.Job, error) {
	return call[sandbox.Job](ctx, c, http.MethodPost, c.jobs(), r)
}

// Job gives a job, with its result where it has one.
func (c *Client) Job(ctx context.Context, id string) (sandbox.Job, error) {
	return call[sandbox.Job](ctx, c, http.MethodGet, c.jobs(id), nil)
}

// JobOptions choose jobs; zero values choose all.
type JobOptions struct {
	Status    sandbox.JobStatus
	SandboxID string
}

// Jobs gives every job that the options choose, the newest first, without results.
func (c *Client) Jobs(ctx context.Context, o JobOptions) ([]sandbox.Job, error) {
	return every(func(page int) (sandbox.Page[sandbox.Job], error) {
		at := c.jobs() + ListOptions{Page: page, PerPage: maxPerPage, Status: sandbox.Status(o.Status)}.query()
		if o.SandboxID != "" {
			at += "&sandbox_id=" + url.QueryEscape(o.SandboxID)
		}
		return call[sandbox.Page[sandbox.Job]](ctx, c, http.MethodGet, at, nil)
	})
}

// CancelJob cancels a job that waits, or kills the program of one that runs. Error AlreadyFinished: it has ended.
func (c *Client) CancelJob(ctx context.Context, id string) (sandbox.Job, error) {
	return call[sandbox.Job](ctx, c, http.MethodPost, c.jobs(id, "cancel"), nil)
}

// JobOutput gives what there is of a stream of a job's last attempt, as ExecOutput does of an exec.
func (c *Client) JobOutput(ctx context.Context, id, stream string, offset int64, wait time.Duration) (Output, error) {
	return c.output(ctx, c.jobs(id, "output"), stream, offset, 0, wait)
}

// FollowJob copies a stream of a job to to until the job has ended, as FollowExec does of an exec: that of each attempt that it meets from
// its beginning. begins is told before each; nil: nobody is.
func (c *Client) FollowJob(ctx context.Context, id, stream string, to io.Writer, begins func(attempt int)) error {
	return c.follow(ctx, c.jobs(id, "output"), stream, 0, to, begins)
}

// AwaitJob waits until a job has ended.
func (c *Client) AwaitJob(ctx context.Context, id string) (sandbox.Job, error) {
	for {
		j, err := c.Job(ctx, id)
		if err != nil || j.Status.Ended() {
			return j, err
		}
		if err := c.follow(ctx, c.jobs(id, "output"), sandbox.Stdout, atTheEnd, io.Discard, nil); err != nil && !errors.As(err, new(*CutError)) {
			return j, err
		}
	}
}

// CallbackKey is what the namespace's callbacks are signed with.
func (c *Client) CallbackKey(ctx context.Context) (string, error) {
	k, err := call[sandbox.CallbackKey](ctx, c, http.MethodGet, c.jobs("callback_key"), nil)
	return k.Key, err
}
