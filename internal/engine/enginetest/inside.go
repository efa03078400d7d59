package enginetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/internal/engine"
	"outpost.run/outpost/sandbox"
)

// inside are cases on what a client does in a machine beside programs.
var inside = []testCase{
	{"files go in and come out with the user's rights, alone and as archives", func(s *suite) {
		m := s.start(stateful)
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		s.files(m, agent.FileOp{Verb: sandbox.PutFile, Path: "sub/big", Mode: 0o750}, big)
		s.says(m, "import os; st = os.stat('sub/big'); print(st.st_size, oct(st.st_mode), st.st_uid)", "1048576 0o100750 1000")
		if got := s.files(m, agent.FileOp{Verb: sandbox.GetFile, Path: "sub/big", Offset: 16, Length: 32}, nil); !bytes.Equal(got.Bytes(), big[16:48]) || got.infos[0].Size != 1<<20 || got.infos[0].Mode != "0750" {
			s.t.Errorf("a part of it: %q, %+v", got.Bytes(), got.infos)
		}
		packed := s.files(m, agent.FileOp{Verb: sandbox.PackFolder, Path: "sub"}, nil)
		h, err := tar.NewReader(bytes.NewReader(packed.Bytes())).Next()
		if err != nil || h.Name != "big" || h.Size != 1<<20 || h.Mode != 0o750 {
			s.t.Errorf("packed: %+v, %v", h, err)
		}
		s.files(m, agent.FileOp{Verb: sandbox.Unpack, Path: "other"}, packed.Bytes())
		s.says(m, "print(open('other/big').read() == open('sub/big').read())", "True")
		s.files(m, agent.FileOp{Verb: sandbox.RemoveFile, Path: "sub"}, nil)
		if got := s.files(m, agent.FileOp{Verb: sandbox.ListFolder, Path: "."}, nil); len(got.infos) != 1 || got.infos[0].Name != "other" || got.infos[0].Path != "/workspace/other" || got.infos[0].Type != sandbox.Directory {
			s.t.Errorf("listed: %+v", got.infos)
		}
		s.filesRefused(m, agent.FileOp{Verb: sandbox.GetFile, Path: "nowhere"}, nil, sandbox.FileNotFound)
		s.filesRefused(m, agent.FileOp{Verb: sandbox.PutFile, Path: "/etc/passwd"}, big, sandbox.FilePermissionDenied)
		s.filesRefused(m, agent.FileOp{Verb: sandbox.PutFile, Path: "too-big"}, bytes.Repeat(big, 80), sandbox.DiskFull)
		s.filesRefused(m, agent.FileOp{Verb: sandbox.PutFile, Path: "/dev/shm/x"}, big, sandbox.FilePermissionDenied)
		s.filesRefused(m, agent.FileOp{Verb: sandbox.Unpack, Path: "/dev/shm"}, packed.Bytes(), sandbox.FilePermissionDenied)
		s.says(m, "import os; print(sorted(os.listdir('.')), os.listdir('/dev/shm'))", "['main.py', 'other'] []")
	}},
	{"a terminal is one: its size, its signals, its session", func(s *suite) {
		m := s.start(stateful)
		t := s.terminal(m, `import os, signal, sys, threading
signals = {signal.SIGWINCH, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, signals) # a handler may miss one that comes just before a read
def read():
    for line in sys.stdin: os.write(1, b'typed ' + line.encode())
threading.Thread(target=read, daemon=True).start()
print(os.ttyname(0), os.isatty(1), os.getsid(0) == os.getpid(), *os.get_terminal_size(), flush=True)
while signal.sigwait(signals) == signal.SIGWINCH: os.write(1, b'size %d %d\n' % tuple(os.get_terminal_size()))
os._exit(7)`)
		t.sees("/dev/pts/0 True True 91 37")
		t.types("abc\n")
		t.sees("typed abc")
		if err := t.x.Control(agent.Control{Cols: 100, Rows: 40}); err != nil {
			s.t.Error(err)
		}
		t.sees("size 100 40")
		t.types("\x03")
		if exit := t.end(); exit.Code != 7 {
			s.t.Errorf("after ^C: %+v", exit)
		}
	}},
	{"who hangs up leaves what was told to stay, and no shell", func(s *suite) {
		m := s.start(stateful)
		t := s.terminal(m, "import subprocess, time\nsubprocess.Popen(['sleep', '4001'], start_new_session=True)\nprint('ready', flush=True)\ntime.sleep(4002)")
		t.sees("ready")
		t.x.Close()
		t.end()
		s.processes(m, func(all []string) bool { return len(all) == 1 && all[0] == "sleep 4001" })
	}},
	{"a program that stays lives on without its connection, and hears signals", func(s *suite) {
		m := s.start(stateful)
		x, err := m.Park(s.t.Context(), engine.ExecSpec{ID: execID(), User: "sandbox", Limits: Limits, Stays: true})
		if err != nil {
			s.t.Fatal(err)
		}
		began, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			_, _, _ = x.Run(agent.Run{Argv: []string{"sh", "-c", "while :; do echo x; sleep 0.01; done"}, Dir: "/workspace", MaxOutput: 1 << 20, Stays: "a loop"},
				agent.Feed{Stdout: io.Discard, Stderr: io.Discard, Started: func() { close(began) }, Exited: func(agent.Exit) {}})
		}()
		<-began
		x.Close()
		<-ended
		loops := func(all []string) bool { return len(all) > 0 && strings.HasPrefix(all[0], "sh -c while") }
		pids := s.processes(m, loops)
		c := s.call(m)
		if err := c.Signal(agent.Signal{Pid: pids[0], Signal: 9}); err != nil {
			s.t.Errorf("signal: %v", err)
		}
		s.processes(m, func(all []string) bool { return !loops(all) })
		for _, pid := range []int{1, 99999} {
			if err := s.call(m).Signal(agent.Signal{Pid: pid, Signal: 9}); sandbox.CodeOf(err) != sandbox.NotFound {
				s.t.Errorf("signal to %d: %v", pid, err)
			}
		}
	}},
	{"what a program that stays says while nobody listens is told to the next who does", func(s *suite) {
		m := s.start(stateful)
		id := execID()
		x, err := m.Park(s.t.Context(), engine.ExecSpec{ID: id, User: "sandbox", Limits: Limits, Stays: true})
		if err != nil {
			s.t.Fatal(err)
		}
		code := `import os, sys, time
for n in range(3000):
    print(n, flush=True)
    if n == 1000:
        while not os.path.exists('go'): time.sleep(.01)
print('said', 'x' * 100, file=sys.stderr)
while not os.path.exists('on'): time.sleep(.01)
os.write(1, b'y' * 2000000)
while not os.path.exists('end'): time.sleep(.01)
open('made', 'w').write('all')
sys.exit(5)`
		run := agent.Run{Argv: []string{"python3", "-c", code}, Dir: "/workspace", MaxOutput: 1 << 30, Stays: id, Collect: []string{"m*", "missing"}}
		heard, first := make(chan struct{}), &written{}
		go func() {
			defer close(heard)
			_, _, _ = x.Run(run, agent.Feed{Stdout: first, Stderr: io.Discard, Started: func() {}, Exited: func(agent.Exit) {}})
		}()
		first.wait(s, 500)
		x.Close()
		<-heard
		s.files(m, agent.FileOp{Verb: sandbox.PutFile, Path: "go"}, []byte("x"))
		had := first.String()[:300] // as much as the one who died had put away
		again := func(at int64) (out, errs *written, ended chan error) {
			s.t.Helper()
			x, err := m.Resume(s.t.Context(), id)
			if err != nil {
				s.t.Fatal(err)
			}
			out, errs, ended = &written{}, &written{}, make(chan error, 1)
			go func() {
				exit, files, err := x.Run(agent.Run{MaxOutput: 1 << 30}, agent.Feed{Stdout: out, Stderr: errs, Started: func() {}, Exited: func(agent.Exit) {}, Resume: &agent.Resume{Name: id, At: [2]int64{at, 0}}})
				if err == nil && (exit.Code != 5 || len(files) != 1 || files[0].Path != "made" || string(files[0].Content) != "all") {
					err = fmt.Errorf("%+v, files %q", exit, files)
				}
				ended <- err
				x.Close()
			}()
			return out, errs, ended
		}
		var want strings.Builder
		for n := range 3000 {
			fmt.Fprintln(&want, n)
		}
		out, errs, ended := again(int64(len(had)))
		out.wait(s, want.Len()-len(had))
		errs.wait(s, 106)
		if had+out.String() != want.String() || !strings.HasPrefix(errs.String(), "said x") {
			s.t.Errorf("%d bytes of %d, %q", len(had)+out.Len(), want.Len(), errs)
		}
		s.files(m, agent.FileOp{Verb: sandbox.PutFile, Path: "on"}, []byte("x"))
		out.wait(s, want.Len()-len(had)+2_000_000)
		late, _, lateEnded := again(int64(want.Len())) // another takes its turn; what it has is too old
		if err := <-ended; sandbox.CodeOf(err) != sandbox.Lost {
			s.t.Errorf("who followed before: %v", err)
		}
		s.files(m, agent.FileOp{Verb: sandbox.PutFile, Path: "end"}, []byte("x"))
		if err := <-lateEnded; err != nil || late.Len() != 0 {
			s.t.Errorf("after a loss: %v, %d bytes", err, late.Len())
		}
		x, err = m.Resume(s.t.Context(), execID())
		if err != nil {
			s.t.Fatal(err)
		}
		defer x.Close()
		_, _, err = x.Run(run, agent.Feed{Stdout: io.Discard, Stderr: io.Discard, Resume: &agent.Resume{Name: "nobody"}})
		if sandbox.CodeOf(err) != sandbox.NotFound {
			s.t.Errorf("a program that is not known: %v", err)
		}
	}},
	{"a program that stays, and runs out of memory while nobody listens, is told to the next who does", func(s *suite) {
		m := s.start(stateful)
		id, low := execID(), Limits
		low.MemoryMB = 64
		x, err := m.Park(s.t.Context(), engine.ExecSpec{ID: id, User: "sandbox", Limits: low, Stays: true})
		if err != nil {
			s.t.Fatal(err)
		}
		began, ended := make(chan struct{}), make(chan struct{})
		code := "import os, time\nwhile not os.path.exists('go'): time.sleep(.01)\nx = bytearray(b'x' * (100 << 20))"
		go func() {
			defer close(ended)
			_, _, _ = x.Run(agent.Run{Argv: []string{"python3", "-c", code}, Dir: "/workspace", MaxOutput: 1 << 20, Stays: id},
				agent.Feed{Stdout: io.Discard, Stderr: io.Discard, Started: func() { close(began) }, Exited: func(agent.Exit) {}})
		}()
		<-began
		x.Close()
		<-ended
		s.files(m, agent.FileOp{Verb: sandbox.PutFile, Path: "go"}, []byte("x"))
		s.processes(m, func(all []string) bool { return len(all) == 0 })
		s.says(m, "print(1)", "1") // what it leaves is taken away, but for what somebody may ask for
		if x, err = m.Resume(s.t.Context(), id); err != nil {
			s.t.Fatal(err)
		}
		defer x.Close()
		exit, _, err := x.Run(agent.Run{MaxOutput: 1 << 20}, agent.Feed{Stdout: io.Discard, Stderr: io.Discard, Started: func() {}, Exited: func(agent.Exit) {}, Resume: &agent.Resume{Name: id}})
		if usage, oom := x.Usage(); err != nil || !oom || usage.CPUMS == 0 {
			s.t.Errorf("%+v, %v; OOM %v, %+v", exit, err, oom, usage)
		}
	}},
	{"programs ignore no signal that nobody told them to", func(s *suite) {
		s.says(s.start(), "print([l for l in open('/proc/self/status') if l.startswith(('SigIgn', 'SigBlk'))])", `['SigBlk:\t0000000000000000\n', 'SigIgn:\t0000000001001000\n']`) // Python's own: SIGPIPE and SIGXFSZ
	}},
}

func (s *suite) call(m engine.Machine) *agent.Conn {
	s.t.Helper()
	c, err := m.Call(s.t.Context())
	if err != nil {
		s.t.Fatalf("Call: %v", err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// written is what a program wrote until now.
type written struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements io.Writer.
func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// Len is how many bytes they are.
func (w *written) Len() int { return len(w.String()) }

// wait returns when there are at least so many bytes.
func (w *written) wait(s *suite, n int) {
	s.t.Helper()
	for end := time.Now().Add(patience); w.Len() < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%d bytes, want %d", w.Len(), n)
		}
	}
}

// brought is what a call on files brings.
type brought struct {
	bytes.Buffer
	infos []sandbox.FileInfo
}

// Found implements agent.FileSink.
func (b *brought) Found(i sandbox.FileInfo) error {
	b.infos = append(b.infos, i)
	return nil
}

func (s *suite) tryFiles(m engine.Machine, op agent.FileOp, body []byte) (*brought, error) {
	op.Dir, op.User = "/workspace", "sandbox"
	c := s.call(m)
	defer c.Close()
	got := &brought{}
	if body == nil {
		return got, c.Files(op, nil, got)
	}
	return got, c.Files(op, bytes.NewReader(body), got)
}

func (s *suite) files(m engine.Machine, op agent.FileOp, body []byte) *brought {
	s.t.Helper()
	got, err := s.tryFiles(m, op, body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", op.Verb, op.Path, err)
	}
	return got
}

func (s *suite) filesRefused(m engine.Machine, op agent.FileOp, body []byte, want sandbox.Code) {
	s.t.Helper()
	if _, err := s.tryFiles(m, op, body); sandbox.CodeOf(err) != want {
		s.t.Errorf("%s %s: %v, want %s", op.Verb, op.Path, err, want)
	}
}

// patience is how long what must come may take on a busy machine.
const patience = time.Minute

// processes waits until the programs' processes fit, and gives their numbers.
func (s *suite) processes(m engine.Machine, fit func(commands []string) bool) (pids []int) {
	s.t.Helper()
	var commands []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		all, err := s.call(m).Processes()
		if err != nil {
			s.t.Fatal(err)
		}
		commands, pids = nil, nil
		for _, p := range all {
			commands, pids = append(commands, strings.Join(p.Command, " ")), append(pids, p.Pid)
		}
		if fit(commands) {
			return pids
		}
	}
	s.t.Fatalf("processes: %q", commands)
	return nil
}

// terminal is a program that runs in one.
type terminal struct {
	s     *suite
	x     engine.Exec
	in    *io.PipeWriter
	out   chan string
	shown string
	exit  chan agent.Exit
}

func (s *suite) terminal(m engine.Machine, code string) *terminal {
	s.t.Helper()
	x, err := m.Park(s.t.Context(), engine.ExecSpec{ID: execID(), User: "sandbox", Limits: Limits})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(x.Close)
	t := &terminal{s: s, x: x, out: make(chan string, 1000), exit: make(chan agent.Exit, 1)}
	stdin, in := io.Pipe()
	t.in = in
	go func() {
		defer stdin.Close()
		exit, _, err := x.Run(agent.Run{Argv: []string{"python3", "-c", code}, Dir: "/workspace", MaxOutput: 1 << 40, Terminal: &agent.Control{Cols: 91, Rows: 37}},
			agent.Feed{Stdin: stdin, Stdout: pieces(t.out), Stderr: io.Discard, Started: func() {}, Exited: func(agent.Exit) {}})
		if err != nil {
			exit.Code = -1
		}
		t.exit <- exit
	}()
	return t
}

// pieces sends what is written on.
type pieces chan string

// Write implements io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	p <- string(b)
	return len(b), nil
}

func (t *terminal) sees(word string) {
	t.s.t.Helper()
	for !strings.Contains(t.shown, word) {
		select {
		case piece := <-t.out:
			t.shown += piece
		case <-time.After(patience):
			t.s.t.Fatalf("no %q on the terminal: %q", word, t.shown)
		}
	}
}

func (t *terminal) types(text string) {
	t.s.t.Helper()
	if _, err := fmt.Fprint(t.in, text); err != nil {
		t.s.t.Error(err)
	}
}

func (t *terminal) end() agent.Exit {
	t.s.t.Helper()
	select {
	case e := <-t.exit:
		return e
	case <-time.After(patience):
		t.s.t.Fatalf("it does not end: %q", t.shown)
	}
	return agent.Exit{}
}
