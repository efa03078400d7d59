package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing/iotest"
	"time"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// insides are cases on files, processes, terminals and programs in the background.
var insides = []testCase{
	{"files of a stateful sandbox come and go", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		text := bytes.Repeat([]byte("a line of text\n"), 20_000)
		s.files(id, service.FileOp{Verb: sandbox.PutFile, Path: "a/b"}, bytes.NewReader(text))
		s.says(id, program{code: "print(len(open('a/b').read()))"}, fmt.Sprint(len(text)))
		if got := s.files(id, service.FileOp{Verb: sandbox.GetFile, Path: "a/b"}, nil); !bytes.Equal(got.Bytes(), text) || len(got.infos) != 1 {
			s.t.Errorf("got back %d bytes, %+v", got.Len(), got.infos)
		}
		s.filesRefused(id, service.FileOp{Verb: sandbox.GetFile, Path: "a"}, nil, sandbox.IsADirectory)
		s.filesRefused(id, service.FileOp{Verb: sandbox.ListFolder, Path: "a/b"}, nil, sandbox.NotADirectory)
		s.filesRefused(s.create(s.spec(sandbox.Ephemeral)), service.FileOp{Verb: sandbox.ListFolder, Path: "."}, nil, sandbox.NotStateful)
		s.filesRefused("sb_nobody", service.FileOp{Verb: sandbox.ListFolder, Path: "."}, nil, sandbox.NotFound)
	}},
	{"an upload that breaks off leaves the old file and no other", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		s.files(id, service.FileOp{Verb: sandbox.PutFile, Path: "kept"}, strings.NewReader("old"))
		broken := io.MultiReader(bytes.NewReader(make([]byte, 300_000)), iotest.ErrReader(errors.New("gone")))
		if err := s.r.Files(s.t.Context(), id, service.FileOp{Verb: sandbox.PutFile, Path: "kept"}, broken, &brought{}); err == nil {
			s.t.Error("a broken upload is none")
		}
		s.says(id, program{code: "import os, time\nwhile len(os.listdir('.')) > 2: time.sleep(.01)\nprint(open('kept').read(), sorted(os.listdir('.')))"}, "old ['kept', 'main.py']")
	}},
	// CVE-2025-31133 and its like: who resolves a path that a program changes meanwhile ends up elsewhere.
	{"a program that swaps links under a path leads nowhere but into its own root", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		ctx, cancel := context.WithCancel(s.t.Context())
		swapper := s.begun(ctx, id, program{code: `
import os
os.makedirs('real'); open('real/passwd', 'w').write('inside'); os.symlink('/etc', 'evil')
os.symlink('real', 'dir'); print('began', flush=True)
while True:
    for target in ('/proc/1/root/etc', '../../../../../etc', 'evil', 'real'):
        os.symlink(target, 'new'); os.rename('new', 'dir')`})
		for range 300 {
			got := &brought{}
			err := s.r.Files(s.t.Context(), id, service.FileOp{Verb: sandbox.GetFile, Path: "dir/passwd"}, nil, got)
			if inside := strings.Contains(got.String(), "sandbox:x:1000") || got.String() == "inside"; err == nil && !inside {
				s.t.Fatalf("read %q", got.String())
			}
			err = s.r.Files(s.t.Context(), id, service.FileOp{Verb: sandbox.PutFile, Path: "dir/outpost-was-here"}, strings.NewReader("x"), &brought{})
			if code := sandbox.CodeOf(err); err != nil && code != sandbox.FilePermissionDenied && code != sandbox.FileNotFound {
				s.t.Fatal(err)
			}
		}
		cancel()
		_, _ = swapper()
	}},
	{"special files hold nobody up", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		s.says(id, program{code: "import os, socket\nos.mkfifo('fifo'); socket.socket(socket.AF_UNIX).bind('sock')\nos.symlink('loop', 'loop'); print(1)"}, "1")
		for _, name := range []string{"fifo", "sock", "/dev/zero", "/dev/tty"} {
			s.filesRefused(id, service.FileOp{Verb: sandbox.GetFile, Path: name}, nil, sandbox.FilePermissionDenied)
			s.filesRefused(id, service.FileOp{Verb: sandbox.PutFile, Path: name}, strings.NewReader("x"), sandbox.FilePermissionDenied)
		}
		s.filesRefused(id, service.FileOp{Verb: sandbox.GetFile, Path: "loop"}, nil, sandbox.FilePermissionDenied)
		s.run(id, program{code: "import os; os.makedirs('locked/in'); open('locked/in/key', 'w'); os.chmod('locked/in/key', 0)"})
		err := s.r.Files(s.t.Context(), id, service.FileOp{Verb: sandbox.PackFolder, Path: "locked"}, nil, &brought{})
		if s.refused("a folder with what can't be read", err, sandbox.FilePermissionDenied); err != nil && !strings.Contains(err.Error(), "locked/in/key") {
			s.t.Errorf("it is not named: %v", err)
		}
		s.run(id, program{code: "import shutil; shutil.rmtree('locked')"})
		if got := s.files(id, service.FileOp{Verb: sandbox.PackFolder, Path: "."}, nil); got.Len() == 0 {
			s.t.Error("an archive of special files is empty")
		}
	}},
	{"a terminal is typed at and resized, and its end is its program's", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		in, typing := io.Pipe()
		said := make(chan string, 1000)
		e := service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Command: []string{"sh"}, Limits: Limits, MaxOutputBytes: 1 << 40, Terminal: &sandbox.TerminalSize{Cols: 90, Rows: 30}}
		e.Limits.TimeoutMS = 0
		ended := make(chan service.ExecOutcome, 1)
		go func() {
			o, err := s.r.Exec(s.t.Context(), id, e, service.Streams{Stdin: in, Stdout: pieces(said), Stderr: io.Discard})
			if err != nil {
				s.t.Error(err)
			}
			ended <- o
		}()
		shown := ""
		sees := func(word string) {
			s.t.Helper()
			for !strings.Contains(shown, word) {
				select {
				case piece := <-said:
					shown += piece
				case <-time.After(time.Minute):
					s.t.Fatalf("no %q: %q", word, shown)
				}
			}
		}
		fmt.Fprintln(typing, "stty size")
		sees("30 90")
		if err := s.r.Control(s.t.Context(), id, e.ID, service.TerminalControl{Size: sandbox.TerminalSize{Cols: 101, Rows: 31}}); err != nil {
			s.t.Error(err)
		}
		fmt.Fprintln(typing, "stty size; exit 5")
		sees("31 101")
		if o := <-ended; o.ExitCode != 5 || o.Reason != sandbox.Exited {
			s.t.Errorf("its end: %+v", o)
		}
		typing.Close()
		s.refused("control of one that has ended", s.r.Control(s.t.Context(), id, e.ID, service.TerminalControl{}), sandbox.NotFound)
	}},
	{"processes are listed and signalled by their numbers inside", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		s.says(id, program{code: "import subprocess\nsubprocess.Popen(['sleep', '4003'], stdin=-3, stdout=-3, stderr=-3); print(1)"}, "1")
		all, err := s.r.Processes(s.t.Context(), id)
		if err != nil || len(all) != 1 || strings.Join(all[0].Command, " ") != "sleep 4003" || all[0].User != "sandbox" || all[0].Pid < 2 || time.Since(all[0].StartedAt.Time) > time.Hour {
			s.t.Fatalf("%+v, %v", all, err)
		}
		if err := s.r.Signal(s.t.Context(), id, all[0].Pid, 15); err != nil {
			s.t.Error(err)
		}
		for end := time.Now().Add(time.Minute); len(all) > 0 && time.Now().Before(end); {
			if all, err = s.r.Processes(s.t.Context(), id); err != nil {
				s.t.Fatal(err)
			}
		}
		if len(all) > 0 {
			s.t.Errorf("after SIGTERM: %+v", all)
		}
	}},
	{"a program in the background has no deadline, and outlives the runtime", func(s *suite) {
		id, e := s.leftRunning("echo began; sleep 4004; echo woke; exit 9")
		started := make(chan struct{}, 1)
		all, err := s.r.Processes(s.t.Context(), id)
		if err != nil || len(all) != 2 || strings.Join(all[1].Command, " ") != "sleep 4004" {
			s.t.Fatalf("after a restart: %+v, %v", all, err)
		}
		e.Resume[0] = 2
		var said bytes.Buffer
		outcome := make(chan service.ExecOutcome, 1)
		go func() {
			o, err := s.r.Exec(s.t.Context(), id, e, service.Streams{Stdout: &said, Stderr: io.Discard, Started: started})
			if err != nil {
				s.t.Error(err)
			}
			outcome <- o
		}()
		<-started
		if err := s.r.Signal(s.t.Context(), id, all[1].Pid, 9); err != nil {
			s.t.Error(err)
		}
		if o := <-outcome; o.ExitCode != 9 || o.StdoutBytes != 11 || !strings.HasPrefix(said.String(), "gan\n") || !strings.HasSuffix(said.String(), "woke\n") {
			s.t.Errorf("%+v, said %q", o, said.String())
		}
		e.ID = sandbox.NewID(sandbox.ExecPrefix)
		_, err = s.r.Exec(s.t.Context(), id, e, service.Streams{Stdout: io.Discard, Stderr: io.Discard})
		s.refused("to resume what nobody knows", err, sandbox.Lost)
	}},
	{"who cancels a program that the runtime just takes up again kills it", func(s *suite) {
		id, e := s.leftRunning("sleep 4005; sleep 4005")
		ctx, cancel := context.WithCancel(s.t.Context())
		cancel()
		o, err := s.r.Exec(ctx, id, e, service.Streams{Stdout: io.Discard, Stderr: io.Discard})
		if err != nil || o.Reason != sandbox.Cancelled {
			s.t.Errorf("%+v, %v", o, err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			all, err := s.r.Processes(s.t.Context(), id)
			if err != nil {
				s.t.Fatal(err)
			}
			if len(all) == 0 {
				break
			}
			if time.Now().After(end) {
				s.t.Fatalf("left: %+v", all)
			}
		}
	}},
}

// leftRunning is a script in the background of a stateful sandbox whose runtime was closed and opened again, and the exec that resumes it.
func (s *suite) leftRunning(script string) (id string, e service.ExecSpec) {
	s.t.Helper()
	spec := s.spec(sandbox.Stateful)
	id = s.create(spec)
	started := make(chan struct{}, 1)
	e = service.ExecSpec{ID: sandbox.NewID(sandbox.ExecPrefix), Command: []string{"sh", "-c", script}, Limits: Limits, MaxOutputBytes: 1 << 20, Background: true}
	e.Limits.TimeoutMS = 0
	ended := make(chan error, 1)
	go func() {
		_, err := s.r.Exec(s.t.Context(), id, e, service.Streams{Stdout: io.Discard, Stderr: io.Discard, Started: started})
		ended <- err
	}()
	<-started
	if err := s.r.Close(s.t.Context(), false); err != nil {
		s.t.Fatal(err)
	}
	s.refused("the exec when the runtime goes", <-ended, sandbox.Lost)
	s.r = s.Reopen(s.t)
	s.sync(spec)
	s.t.Cleanup(func() { _ = s.r.Delete(context.WithoutCancel(s.t.Context()), id) })
	e.Resume = &[2]int64{}
	return id, e
}

// pieces sends what is written on.
type pieces chan string

// Write implements io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	p <- string(b)
	return len(b), nil
}

// brought is what a call on files brings.
type brought struct {
	bytes.Buffer
	infos []sandbox.FileInfo
}

// Found implements service.FileSink.
func (b *brought) Found(i sandbox.FileInfo) error {
	b.infos = append(b.infos, i)
	return nil
}

func (s *suite) files(id string, op service.FileOp, body io.Reader) *brought {
	s.t.Helper()
	got := &brought{}
	if err := s.r.Files(s.t.Context(), id, op, body, got); err != nil {
		s.t.Fatalf("%s %s: %v", op.Verb, op.Path, err)
	}
	return got
}

func (s *suite) filesRefused(id string, op service.FileOp, body io.Reader, want sandbox.Code) {
	s.t.Helper()
	s.refused(string(op.Verb)+" "+op.Path, s.r.Files(s.t.Context(), id, op, body, &brought{}), want)
}
