package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
	"outpost.run/outpost/sandbox"
)

// languageOf tells a program's language by the end of its file's name.
var languageOf = map[string]string{
	".py": "python", ".sh": "bash", ".bash": "bash", ".js": "node", ".mjs": "node", ".cjs": "node", ".go": "go", ".rs": "rust",
}

// maxOutputBytes is the most that the server keeps of a stream.
const maxOutputBytes = 16 << 20

// program is what `run` and `exec` send, as flags say it.
type program struct {
	language, code, user, dir string
	deps, env, files, collect []string
	collectTo                 string
	timeoutSecs               int
	memoryMB, pids, diskMB    int
	cpuCores                  float64
	stdin                     bool
	live                      bool      // input may come while the program runs
	feed                      io.Reader // that input; nil: all goes with the request
	inputTaken                bool      // standard input is for something else: the terminal, or the program itself
	outputEncoding            string
}

func (p *program) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&p.language, "language", "l", "", "language of the program (default by the file's ending, Python for - and -c)")
	f.StringVarP(&p.code, "code", "c", "", "the program itself, instead of a file")
	f.StringArrayVar(&p.deps, "dep", nil, "a dependency, such as requests==2.32.3; may be repeated")
	f.StringArrayVarP(&p.env, "env", "e", nil, envHelp)
	f.StringArrayVar(&p.files, "file", nil, "HOST[:PATH], a file to put in beside the program; may be repeated")
	f.StringArrayVar(&p.collect, "collect", nil, "bring a file that the program leaves back, by path or pattern, such as 'out/*.png'; may be repeated")
	f.BoolVarP(&p.stdin, "stdin", "i", false, "give the program this command's standard input as it comes (default where that is a pipe or a file, with exec -d and job submit a file; -i=false: never)")
	f.StringVar(&p.user, "user", "", "user to run as: name, uid or uid:gid")
	f.StringVar(&p.dir, "working-dir", "", "absolute folder to run in")
	f.IntVar(&p.timeoutSecs, "timeout-secs", 0, "end the program after so many seconds")
	f.IntVar(&p.memoryMB, "memory-mb", 0, "memory limit in MiB")
	f.Float64Var(&p.cpuCores, "cpu-cores", 0, "CPU limit in cores, may be fractional")
	f.IntVar(&p.pids, "pids", 0, "limit of processes and threads")
	f.IntVar(&p.diskMB, "disk-mb", 0, "limit of written files in MiB")
}

// outputFlag is for commands that print the result.
func (p *program) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.collectTo, "collect-to", ".", "the folder here that --collect writes to; with --json files are in the result")
	cmd.Flags().StringVar(&p.outputEncoding, "output-encoding", "utf8", "with --json: how the output is written, utf8 or base64")
}

// request makes the exec request. args are FILE or - and the program's arguments; with -c all are arguments.
func (p *program) request(cmd *cobra.Command, args []string) (r sandbox.ExecRequest, err error) {
	if p.code == "" {
		if len(args) == 0 {
			return r, wrongUsage("name a file with the program, - for standard input, or give it by -c")
		}
		if p.code, err = p.read(args[0], cmd.InOrStdin()); err != nil {
			return r, err
		}
		args = args[1:]
	}
	r = sandbox.ExecRequest{Code: &p.code, Language: pointer(p.language), Args: args}
	return r, p.fill(cmd, &r)
}

// command makes the exec request of a command line.
func (p *program) command(cmd *cobra.Command, argv []string) (sandbox.ExecRequest, error) {
	r := sandbox.ExecRequest{Command: argv}
	return r, p.fill(cmd, &r)
}

func (p *program) read(file string, in io.Reader) (string, error) {
	if file == "-" {
		if p.stdin {
			return "", wrongUsage("standard input can't be both the program (-) and its input (-i)")
		}
		p.inputTaken = true
		code, err := io.ReadAll(in)
		return string(code), err
	}
	if p.language == "" {
		ending := filepath.Ext(file)
		if p.language = languageOf[ending]; p.language == "" && ending != "" {
			return "", wrongUsage("%s: no language here has programs that end in %s: name the language by --language", file, ending)
		}
	}
	code, err := os.ReadFile(file)
	return string(code), err
}

func (p *program) fill(cmd *cobra.Command, r *sandbox.ExecRequest) error {
	r.Deps, r.User, r.WorkingDir, r.TimeoutSecs = p.deps, given(cmd, "user", p.user), given(cmd, "working-dir", p.dir), given(cmd, "timeout-secs", p.timeoutSecs)
	encoding, most := "base64", maxOutputBytes
	r.OutputEncoding, r.MaxOutputBytes = &encoding, &most
	switch {
	case asJSON(cmd):
		r.OutputEncoding = &p.outputEncoding
	case cmd.Flags().Changed("output-encoding"):
		return wrongUsage("--output-encoding goes with --json: without it output is passed through as it is")
	}
	limits := sandbox.LimitsRequest{
		MemoryMB: given(cmd, "memory-mb", p.memoryMB), CPUCores: given(cmd, "cpu-cores", p.cpuCores), Pids: given(cmd, "pids", p.pids), DiskMB: given(cmd, "disk-mb", p.diskMB)}
	if limits != (sandbox.LimitsRequest{}) {
		r.ResourceLimits = &limits
	}
	r.Env, r.Collect = variables(p.env), p.collect
	for _, f := range p.files {
		from, to, named := strings.Cut(f, ":")
		if !named {
			to = filepath.Base(from)
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if r.Files == nil {
			r.Files = map[string]sandbox.FileContent{}
		}
		r.Files[to] = content
	}
	if in := p.input(cmd); in != nil {
		var raw []byte
		var err error
		if p.live && !asJSON(cmd) {
			raw, p.feed, err = firstInput(in)
		} else {
			raw, err = io.ReadAll(in)
		}
		if err != nil || p.feed != nil {
			return err
		}
		text := base64.StdEncoding.EncodeToString(raw)
		r.Stdin, r.StdinEncoding = &text, &encoding
	}
	return nil
}

const envHelp = "NAME=VALUE, or NAME for its value here; may be repeated"

// variables are those that --env says.
func variables(said []string) (all [][2]string) {
	for _, e := range said {
		name, value, given := strings.Cut(e, "=")
		if !given {
			value = os.Getenv(name)
		}
		all = append(all, [2]string{name, value})
	}
	return all
}

// given is nil for a flag that was not given; one that was, with whatever value, is the server's to judge.
func given[T any](cmd *cobra.Command, name string, v T) *T {
	if cmd.Flags().Changed(name) {
		return &v
	}
	return nil
}

// pointer is nil for the zero value.
func pointer[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// runLive runs a program by one of two calls, and passes its output through as it comes and its exit code as the error; with --json
// it prints the whole result instead of the output.
func (p *program) runLive(cmd *cobra.Command, whole func() (sandbox.ExecResult, error), live func(client.Live) (sandbox.ExecResult, error)) error {
	if asJSON(cmd) {
		r, err := whole()
		if err == nil {
			err = printJSON(cmd.OutOrStdout(), r)
		}
		if err == nil && r.ExitCode != 0 {
			err = exitError(r.ExitCode)
		}
		return err
	}
	if p.collect != nil { // before the program runs for nothing
		if err := os.MkdirAll(p.collectTo, 0o777); err != nil {
			return err
		}
	}
	var shown [2]counter
	cut := false
	shown[0].to, shown[1].to = cmd.OutOrStdout(), cmd.ErrOrStderr()
	r, err := live(client.Live{Stdout: &shown[0], Stderr: &shown[1], Stdin: p.feed})
	if err != nil {
		return err
	}
	for i, bytes := range []int64{r.StdoutBytes, r.StderrBytes} {
		if bytes > shown[i].n {
			fmt.Fprintf(cmd.ErrOrStderr(), "outpost: %s was cut: %d of %d bytes shown\n", []string{"stdout", "stderr"}[i], shown[i].n, bytes)
			cut = true
		}
	}
	collected := p.putCollected(cmd, r.Files)
	switch err := sayEnd(cmd, r); {
	case err != nil: // the program's own end says more
		if collected != nil {
			sayError(cmd.ErrOrStderr(), false, "", collected)
		}
		return err
	case collected != nil:
		return collected
	case cut:
		return exitError(exitOwn)
	}
	return nil
}

// putCollected writes what --collect brought. Its names are a program's: they lead nowhere but below the folder.
func (p *program) putCollected(cmd *cobra.Command, files map[string]sandbox.FileContent) error {
	if p.collect == nil {
		return nil
	}
	root, err := os.OpenRoot(p.collectTo)
	if err != nil {
		return err
	}
	defer root.Close()
	var failed []error
	for name, content := range files {
		how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
		if slices.Contains(p.collect, name) {
			how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		}
		if err := putBelow(root, strings.TrimLeft(filepath.Clean("/"+name), "/"), content, how); err != nil {
			if errors.Is(err, fs.ErrExist) {
				err = fmt.Errorf("%s is there already, and what a pattern finds replaces no file: give --collect-to another folder", name)
			}
			failed = append(failed, err)
		}
	}
	for _, name := range p.collect {
		if _, is := files[name]; !is && (len(files) == 0 || !strings.ContainsAny(name, "*?[")) {
			failed = append(failed, fmt.Errorf("the program left no file %s", name))
		}
	}
	return errors.Join(failed...)
}

func putBelow(root *os.Root, name string, content []byte, how int) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	f, err := root.OpenFile(name, how, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// counter counts what it passes on.
type counter struct {
	to io.Writer
	n  int64
}

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	return n, err
}

// sayEnd says what ended a program where that was not the program itself, and gives its exit code as the error.
func sayEnd(cmd *cobra.Command, r sandbox.ExecResult) error {
	switch r.TerminationReason {
	case sandbox.TimedOut:
		fmt.Fprintf(cmd.ErrOrStderr(), "outpost: ended at its time limit after %.0f ms\n", r.DurationMS)
	case sandbox.OOMKilled:
		fmt.Fprintln(cmd.ErrOrStderr(), "outpost: ended at its memory limit")
	case sandbox.Cancelled:
		fmt.Fprintln(cmd.ErrOrStderr(), "outpost: cancelled")
	}
	if r.ExitCode != 0 {
		return exitError(r.ExitCode)
	}
	return nil
}
