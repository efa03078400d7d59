package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"outpost.run/outpost/client"
	"outpost.run/outpost/internal/host"
	"outpost.run/outpost/sandbox"
)

// Server is one that is measured.
type Server struct {
	Client  *client.Client
	DataDir string // "" where it can't be read: then there is no bare to compare with
	PID     int
	Stop    func(context.Context) error // nil: it is not ours
}

// Options say what to measure, and how much.
type Options struct {
	Groups   []string
	Runs     int           // of a busy row
	Paced    int           // of one at a steady pace
	Compiled int           // of one that compiles
	Window   time.Duration // of the open loop; a closed one has half
	Machines int           // of the density row

	Server  *Server                                                               // nil: servers are started
	Start   func(ctx context.Context, languages, flags []string) (*Server, error) // on one data directory: one at a time
	Bare    func(dataDir string) (*exec.Cmd, error)
	Freely  func(func() error) error // what f starts is not bound to the client's processor
	Pinned  *host.Pinned
	Log     io.Writer
	Version string
}

// Group is what --only chooses.
type Group struct {
	Name, Does string
	languages  []string
	cold       bool // on a server that keeps no machines ahead
	local      bool // needs the host's own figures of the server
	run        func(*session, context.Context) error
}

// Groups are all, in their order: those of a server with a pool first.
var Groups = []Group{
	{Name: "exec", Does: "exec in an ephemeral sandbox, Python and Node; one after another, and one request each 200 ms", languages: []string{"python", "node"}, run: (*session).execs},
	{Name: "create", Does: "create; create + exec in one call and in two; Python; at both paces", languages: []string{"python"}, run: (*session).creates},
	{Name: "cpu", Does: "the host's processor time for create + exec + reset, beside the program's own", languages: []string{"python"}, local: true, run: (*session).cpu},
	{Name: "rate", Does: "execs a second that 8 clients get, one after another each", languages: []string{"python", "node"}, run: (*session).rates},
	{Name: "open", Does: "open loop: requests at half of that rate, whatever becomes of earlier ones", languages: []string{"python"}, run: (*session).open},
	{Name: "compiled", Does: "a Go and a Rust program compiled and run for the first time, and again", languages: []string{"go", "rust"}, run: (*session).compiled},
	{Name: "density", Does: "memory of an idle live machine, the kernel's and the server's share included", languages: []string{"python"}, local: true, run: (*session).density},
	{Name: "cold", Does: "create + exec on a server that keeps no machines ahead", languages: []string{"python"}, cold: true, run: (*session).coldExecs},
	{Name: "burst", Does: "100 creates + execs at once on such a server", languages: []string{"python"}, cold: true, run: (*session).burst},
}

// session is one run of the bench.
type session struct {
	Options
	group  Group
	server *Server
	cold   bool // what server is
	meter  *meter
	bare   *Bare
	report Report
	rate   map[string]float64 // of 8 clients, by language
}

// Run measures. What can't be measured here is said in the report, and so is what failed: the error is of all of that,
// and comes with what was measured.
func Run(ctx context.Context, o Options) (_ Report, err error) {
	s := &session{Options: o, rate: map[string]float64{}}
	s.report = Report{Version: o.Version, Host: describe(o.Pinned), Images: map[string]string{}, Rows: []Row{}, LeftOut: []LeftOut{}}
	for _, g := range Groups {
		if slices.Contains(o.Groups, g.Name) && ctx.Err() == nil {
			err = errors.Join(err, s.measure(ctx, g))
		}
	}
	return s.report, errors.Join(err, s.leave(context.WithoutCancel(ctx)))
}

// measure measures one group. After a failure the next one gets another server, where it is ours.
func (s *session) measure(ctx context.Context, g Group) error {
	s.group = g
	reason, err := s.enter(ctx, g)
	if err == nil && reason == "" {
		err = g.run(s, ctx)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", g.Name, err)
		reason = err.Error()
	}
	if reason != "" {
		s.say("%s is left out: %s", g.Name, reason)
		s.report.LeftOut = append(s.report.LeftOut, LeftOut{g.Name, reason})
	}
	if err != nil {
		err = errors.Join(err, s.leave(context.WithoutCancel(ctx)))
	}
	return err
}

func describe(p *host.Pinned) Host {
	var u unix.Utsname
	_ = unix.Uname(&u) // fails for a bad address alone
	h := Host{Kernel: unix.ByteSliceToString(u.Release[:]), CPUs: runtime.NumCPU(), Cgroups: "unknown"}
	if all, err := fields("/proc/meminfo"); err == nil {
		h.MemoryMB = all["MemTotal"] >> 20
	}
	if groups, err := host.FindHierarchies(); err == nil {
		h.Cgroups = groups.Kind()
	}
	if p != nil {
		h.Client = &p.CPU
	}
	return h
}

func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.Log, "bench: "+format+"\n", args...)
}

// enter makes sure of a server that fits the group; a reason says why there can be none.
func (s *session) enter(ctx context.Context, g Group) (reason string, err error) {
	if s.Server != nil {
		if g.cold {
			return "it needs a server that keeps no machines ahead, and one runs here: stop that, or give --server-dir", nil
		}
		if g.local && s.Server.DataDir == "" {
			return "it needs a server on this host whose data directory can be read", nil
		}
		if s.server == nil {
			err = s.use(ctx, s.Server)
		}
	} else if s.server == nil || s.cold != g.cold {
		err = s.start(ctx, g.cold)
	}
	if err != nil {
		return "", err
	}
	for _, language := range g.languages {
		err := s.ready(ctx, language)
		if sandbox.CodeOf(err) == sandbox.UnsupportedLanguage {
			return "this server has no " + language, nil
		} else if err != nil {
			return "", err
		}
	}
	return "", nil
}

// start starts a server of our own; the one before is stopped.
func (s *session) start(ctx context.Context, cold bool) error {
	if err := s.leave(ctx); err != nil {
		return err
	}
	var languages, flags []string
	for _, g := range Groups {
		if slices.Contains(s.Groups, g.Name) {
			languages = append(languages, g.languages...)
		}
	}
	if cold {
		flags = append(flags, "--pool-max-idle", "0")
	}
	var server *Server
	err := s.Freely(func() (err error) {
		server, err = s.Start(ctx, languages, flags)
		return err
	})
	if err != nil {
		return err
	}
	s.cold = cold
	return s.use(ctx, server)
}

func (s *session) use(ctx context.Context, server *Server) (err error) {
	s.server, s.meter, s.bare = server, nil, nil
	if server.DataDir == "" {
		s.say("the server's data directory can't be read: there is no bare to compare with")
		return nil
	}
	if s.meter, err = newMeter(server.DataDir, server.PID); err != nil {
		return err
	}
	cmd, err := s.Bare(server.DataDir)
	if err != nil {
		return err
	}
	return s.Freely(func() (err error) {
		s.bare, err = StartBare(cmd)
		return err
	})
}

// leave ends what was started.
func (s *session) leave(ctx context.Context) (err error) {
	if s.bare != nil {
		err = s.bare.Close()
	}
	if s.server != nil && s.server.Stop != nil {
		err = errors.Join(err, s.server.Stop(ctx))
	}
	s.server, s.bare, s.meter = nil, nil, nil
	return err
}

// ready makes one sandbox, so that no measure holds an image's making.
func (s *session) ready(ctx context.Context, language string) error {
	for {
		box, err := s.server.Client.Create(ctx, sandbox.CreateRequest{Language: &language})
		if err == nil {
			s.report.Images[language] = box.Image
			return s.server.Client.Delete(ctx, box.ID)
		}
		if sandbox.CodeOf(err) != sandbox.ImagePreparing {
			return err
		}
		s.say("the image of %s is being made", language)
		if !until(ctx, time.Now().Add(time.Second)) {
			return context.Cause(ctx)
		}
	}
}
