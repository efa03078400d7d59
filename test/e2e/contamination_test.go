package e2e_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"outpost.run/outpost/sandbox"
)

//go:embed testdata/contamination/marks.py
var pythonMarks string

//go:embed testdata/contamination/marks.js
var nodeMarks string

// search is what an exec found before it left its marks, what it could leave, and what it found after.
type search struct {
	Before [][2]string
	Left   []string
	Seen   []string
}

// marker is one kind of sandbox in which execs leave marks.
type marker struct {
	name, code string
	create     sandbox.CreateRequest
	sees       []string // of its own marks: else the search is blind
}

var markers = []marker{
	{"python", pythonMarks, sandbox.CreateRequest{Language: new("python")}, inEachPython},
	{"python as root", pythonMarks, sandbox.CreateRequest{Language: new("python"), Security: &sandbox.SecurityRequest{Preset: new("development")}},
		append([]string{"file /etc/hosts", "file /etc/resolv.conf", "file /usr/lib/python3.13/os.py", "file /etc/ld.so.preload", "name of /etc/cron.daily/%", "coredump filter", "name of /usr/bin/%"}, inEachPython...)},
	{"node", nodeMarks, sandbox.CreateRequest{Language: new("node")},
		[]string{"a process", "process cmdline", "process environ", "port", "net unix", "environment", "globals", "cache", "descriptors", "title", "umask", "nice", "signals", "stack trace limit", "name of /workspace/%", "name of /dev/shm/%", "name of /tmp/.%", "file /home/sandbox/.node_repl_history"}},
}

var inEachPython = []string{
	"a process", "process cmdline", "process environ", "abstract socket", "abstract sockets", "attribute of /workspace", "comm", "descriptor", "descriptors", "dumpable", "environ", "modules", "module values",
	"mq", "msg", "sem", "shm", "sysvipc msg", "sysvipc sem", "sysvipc shm", "nice", "personality", "rlimit", "signals", "tcp", "timer", "timers", "timer slack", "umask", "link /tmp/link",
	"name of /tmp/%", "name of /tmp/.%", "name of /tmp/s%", "name of /dev/shm/%", "name of /workspace/%", "name of /var/tmp/%", "file /workspace/__pycache__/helper.cpython-313.pyc",
}

// TestNoExecFindsWhatAnotherLeft runs execs that each look for the marks of all others, and leave their own wherever a
// program can: none may find any. That the search finds what it looks for is seen by execs that look for their own marks after.
func TestNoExecFindsWhatAnotherLeft(t *testing.T) {
	s := newServer(t, "--pool-max-idle", "32")
	leakCheck(t, s)
	total := 1000
	if testing.Short() {
		total = 100
	}
	boxes := make([]string, len(markers))
	for i, m := range markers {
		boxes[i] = s.box(t, m.create).ID
	}
	var clients sync.WaitGroup
	next := make(chan int)
	var mu sync.Mutex
	starts := map[string]int{}
	for range 3 { // more would leave no processor to those who make machines with a running interpreter
		clients.Go(func() {
			for n := range next {
				kind := []int{0, 0, 1, 0, 2}[n%5]
				start, err := s.markedBy(t, markers[kind], boxes[kind], n)
				if err != nil {
					t.Errorf("%s, exec %d, started %s: %v", markers[kind].name, n, start, err)
				}
				mu.Lock()
				starts[markers[kind].name+" "+start]++
				mu.Unlock()
			}
		})
	}
	for n := range total {
		if t.Failed() {
			break
		}
		next <- n
	}
	close(next)
	clients.Wait()
	t.Log(starts)
	for _, m := range markers {
		if starts[m.name+" warm"] == 0 {
			t.Errorf("%s: none started warm: %v", m.name, starts)
		}
	}
}

// markedBy runs one exec and says what is wrong with what it found.
func (s *server) markedBy(t *testing.T, m marker, sandboxID string, n int) (start string, err error) {
	const half, other = "mark-", "of-"              // short: a process's name has 15 bytes
	id, again := fmt.Sprintf("%04d", n), n/5%4 == 0 // of each kind a fourth sees to it that it can find
	code := strings.NewReplacer("@HALF@", half, "@OTHER@", other, "@ID@", id, "@AGAIN@", fmt.Sprint(again), "@WHOLE@", fmt.Sprint(n%53 == 0)).Replace(m.code)
	r, err := s.Exec(t.Context(), sandboxID, sandbox.ExecRequest{Code: &code, TimeoutSecs: new(120)})
	if err != nil {
		return "", err
	}
	var found search
	if err := json.Unmarshal([]byte(r.Stdout), &found); err != nil || r.ExitCode != 0 {
		return r.Start, fmt.Errorf("it ended with %d: %v\n%.2000s\n%.2000s", r.ExitCode, err, r.Stdout, r.Stderr)
	}
	if len(found.Before) > 0 {
		return r.Start, fmt.Errorf("it found %q", found.Before)
	}
	if !again {
		return r.Start, nil
	}
	for _, want := range m.sees {
		if want = strings.ReplaceAll(want, "%", half+other+id); !slices.Contains(found.Seen, want) {
			return r.Start, fmt.Errorf("it did not find its own mark: %s; it found %q", want, found.Seen)
		}
	}
	return r.Start, nil
}
