// Corpus runs real programs through the API, each in a fresh machine, and compares how they end with what is known of
// them. It sends a program only; what is expected stays here.
//
// Programs come from programs.jsonl.gz of --programs (by default ../shared/corpus, where that is there), else from
// testdata/corpus: NAME.ok.py exits 0, NAME.bug.py does not; the ending tells the language.
package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// entry is one program and what is known of it.
type entry struct {
	ID       string `json:"id"`
	Language string `json:"language"`
	Expect   string `json:"expect"` // ok: exit 0; bug: another code
	Code     string `json:"code"`
}

func main() {
	programs := flag.String("programs", "../shared/corpus", "folder with programs.jsonl.gz; testdata/corpus is used where it has none")
	languages := flag.String("languages", "python,node,go,rust,bash", "languages to run, separated by commas")
	parallel := flag.Int("parallel", 4, "programs at once")
	binary := flag.String("server", "bin/outpost", "outpost to start as the server, unless OUTPOST_URL names one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := run(ctx, *programs, strings.Split(*languages, ","), *parallel, *binary)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

func run(ctx context.Context, folder string, languages []string, parallel int, binary string) (good bool, err error) {
	all, from, err := load(folder)
	if err != nil {
		return false, err
	}
	left := map[string]int{}
	all = slices.DeleteFunc(all, func(e entry) bool {
		if slices.Contains(languages, e.Language) {
			return false
		}
		left[e.Language]++
		return true
	})
	fmt.Printf("corpus: %d programs of %s\n", len(all), from)
	for language, n := range left {
		fmt.Printf("corpus: left out: %d programs in %s, which --languages does not name\n", n, language)
	}
	c, end, err := connect(ctx, binary)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, end()) }()
	return check(ctx, c, all, parallel)
}

// load reads the programs of folder, or where it has none the project's own.
func load(folder string) (all []entry, from string, err error) {
	path := filepath.Join(folder, "programs.jsonl.gz")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		all, err = loadOwn(os.DirFS("testdata/corpus"))
		return all, "testdata/corpus", err
	}
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, "", err
	}
	for d := json.NewDecoder(z); ; {
		var e entry
		if err := d.Decode(&e); err == io.EOF {
			return all, path, nil
		} else if err != nil {
			return nil, "", fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, e)
	}
}

var languageOf = map[string]string{".py": "python", ".js": "node", ".go": "go", ".rs": "rust", ".sh": "bash"}

func loadOwn(folder fs.FS) (all []entry, err error) {
	names, err := fs.Glob(folder, "*.*.*")
	for _, name := range names {
		code, err := fs.ReadFile(folder, name)
		if err != nil {
			return nil, err
		}
		stem := strings.TrimSuffix(name, filepath.Ext(name))
		e := entry{ID: stem, Language: languageOf[filepath.Ext(name)], Expect: strings.TrimPrefix(filepath.Ext(stem), "."), Code: string(code)}
		if e.Language == "" || e.Expect != "ok" && e.Expect != "bug" {
			return nil, fmt.Errorf("testdata/corpus/%s: want NAME.ok.py, NAME.bug.py, or the like with .js, .go, .rs, .sh", name)
		}
		all = append(all, e)
	}
	return all, err
}

// connect gives a client of the server that the environment names, or of one started for this run.
func connect(ctx context.Context, binary string) (*client.Client, func() error, error) {
	if url := os.Getenv("OUTPOST_URL"); url != "" {
		c, err := client.New(url, os.Getenv("OUTPOST_TOKEN"))
		return c, func() error { return nil }, err
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(base, "outpost", "corpus")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	token := rand.Text() + rand.Text()
	s, err := start(ctx, binary, dir, token)
	if err != nil {
		return nil, nil, err
	}
	c, err := client.New(s.address, token)
	return c, s.stop, err
}

// check runs all and says what differs; false where anything does.
func check(ctx context.Context, c *client.Client, all []entry, parallel int) (bool, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan entry)
	var mu sync.Mutex
	var as, done int
	began := time.Now()
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for e := range work {
				r, err := execute(ctx, c, e)
				if err != nil {
					cancel(fmt.Errorf("%s: %w", e.ID, err))
					return
				}
				mu.Lock()
				done++
				if (r.ExitCode == 0) == (e.Expect == "ok") {
					as++
				} else {
					fmt.Printf("DIFFERS %s: expected %s, exit code %d (%s)\n%s\n", e.ID, e.Expect, r.ExitCode, r.TerminationReason, last(r.Stderr))
				}
				if done%50 == 0 {
					fmt.Printf("corpus: %d of %d, %d as expected\n", done, len(all), as)
				}
				mu.Unlock()
			}
		})
	}
	for _, e := range all {
		select {
		case work <- e:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(work)
	workers.Wait()
	fmt.Printf("corpus: %d of %d programs ended as expected, %.1f s\n", as, len(all), time.Since(began).Seconds())
	return as == len(all), context.Cause(ctx)
}

// execute runs one program; an image that is still being made is waited for.
func execute(ctx context.Context, c *client.Client, e entry) (sandbox.ExecResult, error) {
	for {
		r, err := c.Execute(ctx, sandbox.ExecuteRequest{Language: &e.Language, Code: &e.Code})
		if code := sandbox.CodeOf(err); code != sandbox.ImagePreparing && code != sandbox.RateLimited {
			return r, err
		}
		var told *sandbox.Error
		errors.As(err, &told)
		select {
		case <-time.After(time.Duration(max(1, told.RetryAfterSecs)) * time.Second):
		case <-ctx.Done():
			return r, context.Cause(ctx)
		}
	}
}

// last gives the last lines of what a program said.
func last(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-5):], "\n  ")
}

// readyAddress reads a server's log until it says where it listens; the rest is drained.
func readyAddress(log io.Reader) (string, error) {
	in := bufio.NewScanner(log)
	var said []string
	for in.Scan() {
		if _, a, ok := strings.Cut(in.Text(), "outpost ready on "); ok {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return strings.TrimSpace(a), nil
		}
		said = append(said, in.Text())
	}
	return "", fmt.Errorf("the server did not start:\n%s", strings.Join(said, "\n"))
}
