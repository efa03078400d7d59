package e2e_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/sandbox"
)

// A program in an interpreter that was started before it came must not be able to tell, but by start times, pid numbers,
// memory figures and speed. Each case here runs on a server with a pool and on one without, and must be answered the same,
// byte for byte. What any two starts differ in, a case leaves out itself, or names in masks.

// twins are the two servers.
type twins struct{ pooled, cold *server }

func newTwins(t *testing.T) twins {
	t.Helper()
	w := twins{newServer(t, "--pool-max-idle", "32"), newServer(t, "--pool-max-idle", "0")}
	leakCheck(t, w.pooled)
	leakCheck(t, w.cold)
	return w
}

// starts says how the pooled server must start a program.
type starts int

const (
	warm   starts = iota // by an interpreter that was started ahead
	plain                // something of the exec could have changed what the interpreter did before it read the program
	either               // nobody promises
)

// likeness is a case.
type likeness struct {
	name     string // a sentence: it is what a failure prints
	language string // python unless given
	code     string
	starts   starts
	create   sandbox.CreateRequest // but for the language
	exec     sandbox.ExecRequest   // but for the code
	masks    []mask
}

// mask is something that differs between any two starts, for the reason that stands beside it.
type mask struct {
	what *regexp.Regexp
	by   string
}

var (
	addresses = mask{regexp.MustCompile(`0x[0-9a-f]{6,}`), "0x"}       // everywhere: the kernel lays each process out anew
	nodePid   = mask{regexp.MustCompile(`\(node:\d+\)`), "(node:pid)"} // pid numbers may differ
	scratch   = mask{regexp.MustCompile(`program-\w+`), "program-any"} // a random word
	idRange   = mask{regexp.MustCompile(`[ug]id=\d{6,}`), "id="}       // each machine has host ids of its own
)

// told is what a client hears of an exec, but for its times, its usage and its id.
type told struct {
	Refused        string
	ExitCode       int
	Signal         string
	Reason         sandbox.TerminationReason
	TimedOut, OOM  bool
	Stdout, Stderr string
	Truncated      [2]bool
	Bytes          [2]int64
	Files          map[string]sandbox.FileContent
	Isolation      sandbox.Isolation
}

func (s *server) told(ctx context.Context, id string, r sandbox.ExecRequest, masks []mask) (told, string) {
	a, err := s.Exec(ctx, id, r)
	if err != nil {
		e, ok := err.(*sandbox.Error)
		if !ok || e.Code == sandbox.Lost {
			return told{Refused: err.Error()}, ""
		}
		return told{Refused: fmt.Sprint(e.Code, e.Message, e.Details)}, ""
	}
	t := told{
		ExitCode: a.ExitCode, Reason: a.TerminationReason, TimedOut: a.TimedOut, OOM: a.OOMKilled, Stdout: a.Stdout, Stderr: a.Stderr,
		Truncated: [2]bool{a.StdoutTruncated, a.StderrTruncated}, Bytes: [2]int64{a.StdoutBytes, a.StderrBytes}, Files: a.Files, Isolation: a.Isolation,
	}
	if a.Signal != nil {
		t.Signal = *a.Signal
	}
	for _, m := range append(masks, addresses) {
		t.Stdout, t.Stderr = m.what.ReplaceAllString(t.Stdout, m.by), m.what.ReplaceAllString(t.Stderr, m.by)
	}
	t.Bytes[0] += int64(len(t.Stdout) - len(a.Stdout)) // what is masked may have more digits than another's
	t.Bytes[1] += int64(len(t.Stderr) - len(a.Stderr))
	return t, a.Start
}

// patience is how long a pool may take to have an interpreter for a case: it makes them for all cases that run beside.
const patience = 30 * time.Second

// alike runs the case on both servers; on the pooled one until it was started as it must.
func (w twins) alike(t *testing.T, c likeness) {
	if c.language == "" {
		c.language = "python"
	}
	c.create.Language = &c.language
	if c.exec.Command == nil {
		c.exec.Code = &c.code
	}
	want, start := w.cold.told(t.Context(), w.cold.box(t, c.create).ID, c.exec, c.masks)
	if start == "warm" {
		t.Fatal("a server without a pool started it warm")
	}
	made := w.pooled.box(t, c.create)
	for end := time.Now().Add(patience); ; {
		got, start := w.pooled.told(t.Context(), made.ID, c.exec, c.masks)
		if diff := want.diff(got); diff != "" {
			t.Fatalf("started %s it differs:\n%s", start, diff)
		}
		switch {
		case c.starts == plain && start == "warm":
			t.Fatal("it was started warm")
		case c.starts != warm, start == "warm":
			return
		case time.Now().After(end):
			t.Fatal("it was never started warm")
		}
	}
}

// diff shows what differs, text by its lines.
func (a told) diff(b told) string {
	var out strings.Builder
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			continue
		}
		name := x.Type().Field(i).Name
		p, isText := x.Field(i).Interface().(string)
		if !isText {
			fmt.Fprintf(&out, "%s: cold %.300v, warm %.300v\n", name, x.Field(i), y.Field(i))
			continue
		}
		cold, warm := strings.Split(p, "\n"), strings.Split(y.Field(i).String(), "\n")
		for n := range max(len(cold), len(warm)) {
			l, r := at(cold, n), at(warm, n)
			if l != r && out.Len() < 4000 {
				fmt.Fprintf(&out, "%s, line %d:\n\tcold %s\n\twarm %s\n", name, n+1, around(l, r), around(r, l))
			}
		}
	}
	return out.String()
}

func at(lines []string, n int) string {
	if n < len(lines) {
		return lines[n]
	}
	return ""
}

// around is the part of a line where it differs from another.
func around(a, b string) string {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return fmt.Sprintf("%.200q", a[max(0, n-60):])
}

func TestAProgramCantTellThatItsInterpreterWasStartedBeforeIt(t *testing.T) {
	w := newTwins(t)
	for _, group := range []struct {
		name  string
		cases []likeness
	}{
		{"python", pythonCases()}, {"python texts", pythonTexts()}, {"node", nodeCases()}, {"requests", requestCases()}, {"plain", plainCases()},
	} { // those that start plain last: the pool makes much for them
		t.Run(group.name, func(t *testing.T) {
			for n, c := range group.cases {
				if testing.Short() && n%8 > 0 {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					w.alike(t, c)
				})
			}
		})
	}
}

// TestTheCorpusEndsTheSameWarmAndCold runs testdata/corpus, and programs.jsonl.gz of the folder that OUTPOST_TEST_CORPUS names.
func TestTheCorpusEndsTheSameWarmAndCold(t *testing.T) {
	all := corpus(t)
	w := newTwins(t)
	var turn sync.WaitGroup
	next := make(chan likeness)
	var mu sync.Mutex
	count := map[string]int{}
	boxes := map[string][2]string{}
	for _, language := range []string{"python", "node"} {
		r := sandbox.CreateRequest{Language: &language}
		boxes[language] = [2]string{w.cold.box(t, r).ID, w.pooled.box(t, r).ID}
	}
	for range 4 {
		turn.Go(func() {
			for c := range next {
				ids := boxes[c.language]
				want, _ := w.cold.told(t.Context(), ids[0], sandbox.ExecRequest{Code: &c.code}, nil)
				got, start := w.pooled.told(t.Context(), ids[1], sandbox.ExecRequest{Code: &c.code}, nil)
				if diff := want.diff(got); diff != "" {
					t.Errorf("%s, started %s, differs:\n%s", c.name, start, diff)
				}
				mu.Lock()
				count[c.language+" "+start]++
				mu.Unlock()
			}
		})
	}
	for _, c := range all {
		next <- c
	}
	close(next)
	turn.Wait()
	t.Logf("%d programs: %v", len(all), count)
	if count["python warm"] == 0 || count["node warm"] == 0 {
		t.Errorf("none of them started warm: %v", count)
	}
}

func corpus(t *testing.T) (all []likeness) {
	t.Helper()
	for language, ending := range map[string]string{"python": ".py", "node": ".js"} {
		names, err := filepath.Glob("../../testdata/corpus/*" + ending)
		if err != nil || len(names) == 0 {
			t.Fatalf("no programs in testdata/corpus: %v", err)
		}
		for _, name := range names {
			code, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 { // so few would be through before the pool has anything
				all = append(all, likeness{name: filepath.Base(name), language: language, code: string(code)})
			}
		}
	}
	dir := os.Getenv("OUTPOST_TEST_CORPUS")
	if dir == "" {
		return all
	}
	f, err := os.Open(filepath.Join(dir, "programs.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct{ ID, Language, Code string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Language == "python" || e.Language == "node" {
			all = append(all, likeness{name: e.ID, language: e.Language, code: e.Code})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWhatIsRandomIsSoInEachStart: no two interpreters that were started ahead are alike where two ordinary ones are not.
func TestWhatIsRandomIsSoInEachStart(t *testing.T) {
	w := newTwins(t)
	for language, code := range map[string]string{
		"python": "import random, uuid, secrets, os, tempfile\nprint(random.random(), hash('a'), hash(b'a'), uuid.uuid4(), secrets.token_hex(), os.urandom(8).hex(), id(object()), id(os), tempfile.mktemp(), random.SystemRandom().random(), os.getrandom(8).hex(), " +
			"[l.split('-')[0] for l in open('/proc/self/maps') if 'stack' in l][0], open('/proc/self/auxv', 'rb').read().hex())",
		"node": "const c = require('crypto');\nconsole.log(Math.random(), Math.random(), c.randomUUID(), c.randomBytes(8).toString('hex'), crypto.getRandomValues(new Uint32Array(2)).join(), c.generateKeyPairSync('ed25519').publicKey.export({type: 'spki', format: 'der'}).toString('hex'), " +
			"require('fs').readFileSync('/proc/self/maps', 'utf8').split('-')[0])",
	} {
		t.Run(language, func(t *testing.T) {
			for name, s := range map[string]*server{"warm": w.pooled, "cold": w.cold} {
				made := s.box(t, sandbox.CreateRequest{Language: &language})
				seen := map[string]int{}
				for n, warm := 0, 0; warm < 5 || n < 5; n++ {
					if n > 200 {
						t.Fatalf("only %d of %d were started warm", warm, n)
					}
					r, err := s.Exec(t.Context(), made.ID, sandbox.ExecRequest{Code: &code})
					if err != nil {
						t.Fatal(err)
					}
					if r.Start == "warm" || name == "cold" {
						warm++
					}
					for column, value := range strings.Fields(clean(t, r)) {
						key := fmt.Sprint(column, " ", value)
						if seen[key]++; seen[key] > 1 {
							t.Errorf("%s: figure %d was %s twice", name, column, value)
						}
					}
				}
			}
		})
	}
}

// TestAWarmProgramIsCancelledAsAColdOne deletes sandboxes while their program runs, and leaves its call.
func TestAWarmProgramIsCancelledAsAColdOne(t *testing.T) {
	w := newTwins(t)
	for _, c := range []likeness{
		{language: "python", code: "import os, time\nprint('so far', flush=True)\nos.fork()\ntime.sleep(600)"},
		{language: "node", code: "console.log('so far'); setTimeout(() => {}, 600000)"},
		{language: "python", code: "print('so far', flush=True)\nwhile True: pass"},
	} {
		want, _ := cancelled(t, w.cold, c)
		for end := time.Now().Add(patience); ; {
			got, start := cancelled(t, w.pooled, c)
			if diff := want.diff(got); diff != "" {
				t.Errorf("%q, started %s, differs:\n%s", c.code, start, diff)
			}
			if start == "warm" {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%q was never started warm", c.code)
			}
		}
		ctx, leave := context.WithTimeout(t.Context(), 300*time.Millisecond) // the leak check sees to what comes of it
		made := w.pooled.box(t, sandbox.CreateRequest{Language: &c.language})
		if got, _ := w.pooled.told(ctx, made.ID, sandbox.ExecRequest{Code: &c.code}, nil); got.Refused == "" {
			t.Errorf("%q: a call that its client left was answered: %+v", c.code, got)
		}
		leave()
	}
}

// cancelled deletes the sandbox when the program has said something.
func cancelled(t *testing.T, s *server, c likeness) (told, string) {
	t.Helper()
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		made := s.box(t, sandbox.CreateRequest{Language: &c.language})
		time.AfterFunc(wait, func() { _ = s.Delete(context.WithoutCancel(t.Context()), made.ID) })
		got, start := s.told(t.Context(), made.ID, sandbox.ExecRequest{Code: &c.code}, nil)
		if got.Stdout != "" || wait > 20*time.Second {
			return got, start
		}
	}
}
