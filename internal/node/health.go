package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// patient is what one sandbox's checks remember.
type patient struct {
	n     *Node
	b     *box
	began time.Time
	well  bool         // a check has succeeded
	open  map[int]bool // tcp guest ports that once accepted
}

// first is what is known when a machine has started: its agent has just furnished it. A check of the client's own is yet
// to come.
func (p *patient) first() {
	if p.own() {
		p.tell(sandbox.Health{Status: sandbox.Starting})
	} else {
		p.note(nil)
	}
}

// own says whether the client says how to check.
func (p *patient) own() bool { return p.b.spec.Health.Command != nil || p.b.spec.Health.HTTP != nil }

// look checks the sandbox's health every interval, until until is closed.
func (p *patient) look(until <-chan struct{}) {
	every := p.b.spec.Health.IntervalSecs
	if every <= 0 { // who made it knows of no health
		return
	}
	tick := time.NewTicker(time.Duration(every) * healthSecond)
	defer tick.Stop()
	if p.own() {
		p.check()
	}
	for {
		select {
		case <-until:
			return
		case <-p.n.ctx.Done():
			return
		case <-tick.C:
			p.check()
		}
	}
}

// healthSecond is a second; shorter in a test.
var healthSecond = time.Second

func (p *patient) check() {
	m := p.b.machineNow()
	if m == nil {
		return // an ephemeral sandbox between two execs: there is nothing to ask
	}
	ctx, cancel := p.n.bounded(context.Background(), time.Duration(p.b.spec.Health.TimeoutSecs)*healthSecond)
	defer cancel()
	err := p.ask(ctx, m)
	if p.n.ctx.Err() != nil || p.b.machineNow() != m {
		return // it was stopped meanwhile: that is no failure
	}
	p.note(err)
}

// machineNow is the one that can be asked; nil for none.
func (b *box) machineNow() engine.Machine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.machine
}

func (p *patient) ask(ctx context.Context, m engine.Machine) error {
	h := p.b.spec.Health
	switch {
	case h.Command != nil:
		return p.command(ctx, m)
	case h.HTTP != nil:
		return p.http(ctx, m)
	}
	if err := m.Ping(ctx); err != nil {
		return err
	}
	return p.ports(ctx, m)
}

// command runs beside the execs of clients: it takes none of their places, but counts to the sandbox's limits.
func (p *patient) command(ctx context.Context, m engine.Machine) error {
	b := p.b
	place, err := m.Park(ctx, engine.ExecSpec{ID: sandbox.NewID("health_"), User: b.spec.Security.User, Limits: b.spec.Limits})
	if err != nil {
		return err
	}
	defer place.Close()
	defer context.AfterFunc(ctx, func() { _ = place.Kill() })()
	run := agent.Run{Argv: b.spec.Health.Command, Env: environment(b, nil), Dir: b.spec.WorkingDir, MaxOutput: 4 << 10}
	exit, _, err := place.Run(run, agent.Feed{Stdout: io.Discard, Stderr: io.Discard, Started: func() {}, Exited: func(agent.Exit) {}})
	switch {
	case ctx.Err() != nil:
		return errors.New("it did not end in time")
	case err != nil:
		return err
	case exit.Code != 0:
		return fmt.Errorf("it ended with %d", exit.Code)
	}
	return nil
}

func (p *patient) http(ctx context.Context, m engine.Machine) error {
	h := p.b.spec.Health.HTTP
	one := sync.OnceValues(func() (net.Conn, error) { return p.n.dial(ctx, m, h.Port) })
	client := http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return one() },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost:"+strconv.Itoa(h.Port)+h.Path, nil)
	if err != nil {
		return err
	}
	a, err := client.Do(q)
	if err != nil {
		return err
	}
	a.Body.Close()
	if a.StatusCode < 200 || a.StatusCode >= 400 {
		return fmt.Errorf("it answered %d", a.StatusCode)
	}
	return nil
}

// ports wants each tcp port that once accepted to accept.
func (p *patient) ports(ctx context.Context, m engine.Machine) error {
	for _, port := range p.b.portsNow() {
		if port.Protocol != "tcp" {
			continue
		}
		conn, err := p.n.dial(ctx, m, port.GuestPort)
		if err == nil {
			conn.Close()
			p.open[port.GuestPort] = true
		} else if p.open[port.GuestPort] {
			return fmt.Errorf("port %d accepts no more", port.GuestPort)
		}
	}
	return nil
}

func (b *box) portsNow() []sandbox.Port {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ports
}

// note draws the conclusion from one check.
func (p *patient) note(err error) {
	p.b.mu.Lock()
	health := p.b.health
	p.b.mu.Unlock()
	now := sandbox.Now()
	health.CheckedAt = &now
	h := p.b.spec.Health
	switch {
	case err == nil:
		p.well = true
		health.Status, health.Failures = sandbox.Healthy, 0
	case !p.well && time.Since(p.began) < time.Duration(h.StartPeriodSecs)*healthSecond:
		health.Status = sandbox.Starting
	default:
		health.Failures++
		if health.Failures >= h.Retries {
			health.Status = sandbox.Unhealthy
		}
		p.n.log.Debug("a health check failed", "sandbox", p.b.spec.ID, "failures", health.Failures, "error", err)
	}
	p.tell(health)
}

func (p *patient) tell(h sandbox.Health) {
	p.b.mu.Lock()
	gone := p.b.gone || p.b.status != sandbox.Running
	if !gone {
		p.b.health = h
	}
	p.b.mu.Unlock()
	if !gone {
		p.n.news.tell(service.Event{SandboxID: p.b.spec.ID, Health: &h})
	}
}
