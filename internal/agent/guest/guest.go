// Package guest is the agent: what runs as the first process of a machine and starts programs in its cell.
package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/cell"
	"outpost.run/outpost/sandbox"
)

// Agent serves the connections of one machine.
type Agent struct {
	mu     sync.Mutex
	cell   *cell.Cell
	parked map[int]bool // pids of processes that wait for what to run
	kept   []named      // programs that stay, in the order of their starts
	stays  atomic.Bool  // the machine outlives the daemon

	spread sync.Once
}

// Serve answers connections until the listener is closed. It runs as root of the machine's outer user namespace.
//
// The daemon holds the other end of lifeline: when that is closed so is this machine, unless its setup has said that it
// outlives the daemon. So a machine that a daemon died making is gone, too.
func Serve(l net.Listener, lifeline io.Reader) error {
	a := &Agent{parked: map[int]bool{}}
	go func() {
		_, _ = io.Copy(io.Discard, lifeline)
		if !a.stays.Load() {
			os.Exit(0)
		}
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go a.serve(conn)
	}
}

func (a *Agent) serve(conn net.Conn) {
	defer conn.Close()
	kind, b, files, err := agent.ReadWithFiles(conn)
	if err != nil {
		return
	}
	switch kind {
	case agent.KindSetup:
		err = a.setup(conn, b, files)
	case agent.KindPark:
		err = a.exec(conn, b, files)
	case agent.KindMount:
		err = a.mount(conn, b, files)
	case agent.KindUnmount:
		err = a.unmount(conn, b)
	case agent.KindFiles:
		err = a.files(conn, b)
	case agent.KindProcesses:
		err = a.processes(conn)
	case agent.KindSignal:
		err = a.signal(conn, b)
	case agent.KindResume:
		err = a.resume(conn, b)
	case agent.KindPing:
		err = agent.WriteJSON(conn, agent.KindOK, agent.Place{})
	default:
		err = agent.ErrFrame
	}
	if err != nil {
		_ = agent.WriteJSON(conn, agent.KindError, failureOf(err))
	}
}

// refusal is an error that the client caused and may read.
type refusal struct {
	agent.Failure
	cause error // nil where there is none worth telling apart
}

func (r *refusal) Error() string { return r.Message }

func refuse(code sandbox.Code, field, format string, args ...any) error {
	return &refusal{Failure: agent.Failure{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}}
}

func failureOf(err error) agent.Failure {
	var r *refusal
	if errors.As(err, &r) {
		return r.Failure
	}
	return agent.Failure{Code: sandbox.Internal, Message: err.Error()}
}

func (a *Agent) setup(conn net.Conn, b []byte, files []*os.File) error {
	var s agent.Setup
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	n := treesOf(s.Mounts)
	if len(files) < 1+n {
		return errors.New("setup without a root, or without the trees of its mounts")
	}
	defer closeAll(files[1:])
	trees, join := files[1:1+n], files[1+n:]
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cell != nil {
		return errors.New("setup a second time")
	}
	if err := cell.Furnish(files[0], cell.Root{Hostname: s.Hostname, ShmBytes: s.ShmBytes, CPUs: s.CPUs, Devices: devicesOf(s.Mounts, trees)}); err != nil {
		return err
	}
	who, err := lookUser(s.User)
	if err != nil {
		return err
	}
	if err := nameServer(s.Resolver); err != nil {
		return err
	}
	if err := makePlaces(); err != nil {
		return err
	}
	if err := attach(s.Mounts, trees, who); err != nil {
		return err
	}
	if err := makeDir("working_dir", s.WorkingDir, who); err != nil { // perhaps on a disk
		return err
	}
	if err := handOver(s.WorkingDir, who); err != nil {
		return err
	}
	for _, name := range s.Programs {
		if !runnable(name, s.Env) {
			return refuse(sandbox.LanguageRuntimeMissing, "", "the image has no %s: choose an image with this language, or leave image out", name)
		}
	}
	if s.ReadOnly {
		if isRoot(s.WorkingDir) {
			return refuse(sandbox.Invalid, "working_dir", "%s is the root, which preset maximum makes read-only: choose another, for example /workspace", s.WorkingDir)
		}
		if err := cell.Shut(append(s.Writable, s.WorkingDir)); err != nil {
			return err
		}
	}
	if a.cell, err = cell.Start(cell.RootDir, join); err != nil {
		return err
	}
	a.stays.Store(s.Stays)
	return agent.WriteJSON(conn, agent.KindOK, agent.Place{UID: who.uid, GID: who.gid})
}

// runnable says whether a program is found on the path of env.
func runnable(name string, env [][2]string) bool {
	for _, path := range candidates(name, environment(user{}, env)) {
		f, err := open(path, openPath, 0)
		if err != nil {
			continue
		}
		st, err := f.Stat()
		f.Close()
		if err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return true
		}
	}
	return false
}

// candidates are the files that a name may mean.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var all []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		all = append(all, dir+"/"+name)
	}
	return all
}

// environment is a program's: what every login has, then env in its order, the last of a name winning.
func environment(u user, env [][2]string) []string {
	order := []string{}
	values := map[string]string{}
	set := func(k, v string) {
		if _, ok := values[k]; !ok {
			order = append(order, k)
		}
		values[k] = v
	}
	set("PATH", agent.DefaultPath)
	set("HOME", u.home)
	set("USER", u.name)
	set("LOGNAME", u.name)
	set("LANG", "C.UTF-8")
	for _, kv := range env {
		set(kv[0], kv[1])
	}
	list := make([]string, len(order))
	for i, k := range order {
		list[i] = k + "=" + values[k]
	}
	return list
}
