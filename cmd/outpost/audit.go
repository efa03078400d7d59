package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"outpost.run/outpost/internal/audit"
	"outpost.run/outpost/internal/config"
	"outpost.run/outpost/internal/metrics"
	"outpost.run/outpost/sandbox"
)

// auditing is the audit log of a server, and what it says by itself.
type auditing struct {
	log    *audit.Log // nil: there is none
	errors *slog.Logger
	stop   func()
}

// openAudit opens the audit log, and opens it anew at each SIGHUP, until ctx ends or it is closed.
func openAudit(ctx context.Context, c config.Audit, m *metrics.Metrics, log *slog.Logger) (*auditing, error) {
	a := &auditing{errors: log, stop: func() {}}
	if c.File == "" {
		return a, nil
	}
	var err error
	if a.log, err = audit.Open(c.File, m.AuditLine); err != nil {
		return a, err
	}
	m.WatchAudit()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, a.stop = context.WithCancel(context.WithoutCancel(ctx)) // calls under way at the server's end are noted too
	go a.follow(ctx, hangups)
	return a, nil
}

func (a *auditing) follow(ctx context.Context, hangups chan os.Signal) {
	defer signal.Stop(hangups)
	for {
		select {
		case <-hangups:
			if err := a.log.Reopen(); err != nil {
				a.errors.Error("the audit log goes on in its old file", "error", err)
			} else {
				a.errors.Info("the audit log was opened anew")
			}
		case <-ctx.Done():
			return
		}
	}
}

// timeOver notes a sandbox that the server deleted by itself, as service.Config.
func (a *auditing) timeOver(r sandbox.Sandbox, reason string, failed error) {
	if a.log == nil {
		return
	}
	e := audit.Entry{
		Time: time.Now().UTC().Truncate(time.Microsecond), Action: "sandbox.delete", Outcome: audit.Done, Reason: reason, Namespace: r.Namespace,
		Object: map[string]string{"sandbox_id": r.ID},
	}
	if failed != nil {
		e.Outcome, e.Code = audit.Failed, string(sandbox.CodeOf(failed))
	}
	if err := a.log.Write(e); err != nil {
		a.errors.Error("what the server did by itself is missing in the audit log", "action", e.Action, "sandbox_id", r.ID, "reason", reason, "error", err)
	}
}

// Close ends it.
func (a *auditing) Close() {
	a.stop()
	if a.log == nil {
		return
	}
	if err := a.log.Close(); err != nil {
		a.errors.Error("the audit log could not be closed", "error", err)
	}
}
