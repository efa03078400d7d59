package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// screen is a terminal that a test sits at.
type screen struct {
	t      *testing.T
	socket string
}

// newScreen runs a command in a terminal of a tmux of the test's own.
func newScreen(t *testing.T, env []string, command ...string) *screen {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed")
	}
	s := &screen{t, filepath.Join(t.TempDir(), "tmux")}
	args := []string{"-S", s.socket, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "--"}
	cmd := exec.Command("tmux", append(args, command...)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", s.socket, "kill-server").Run() })
	return s
}

func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", s.socket}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %v: %v %s", args, err, out)
	}
	return string(out)
}

func (s *screen) types(keys ...string) {
	s.t.Helper()
	s.tmux(append([]string{"send-keys"}, keys...)...)
}

// sees waits until the screen has a word.
func (s *screen) sees(word string) {
	s.t.Helper()
	var shown string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if shown = s.tmux("capture-pane", "-p"); strings.Contains(shown, word) {
			return
		}
	}
	s.t.Fatalf("no %q on the screen:\n%s", word, strings.TrimRight(shown, "\n"))
}

// sit runs a command of outpost in a terminal, ID standing for a stateful sandbox, and says how it ended.
func sit(t *testing.T, command string) (s *screen, id string) {
	t.Helper()
	leakCheck(t, shared)
	id = shared.box(t, stateful()).ID
	env := []string{"OUTPOST_DATA_DIR=" + shared.dir, "OUTPOST_TOKEN=" + adminToken}
	return newScreen(t, env, "sh", "-c", binary+" "+strings.Replace(command, "ID", id, 1)+"; echo ended with $?; sleep 1000"), id
}

func TestAShellInARealTerminal(t *testing.T) {
	s, id := sit(t, "shell ID")
	s.sees("workspace$")
	s.types("stty size", "Enter")
	s.sees("30 100")
	s.types("top", "Enter") // a full-screen program
	s.sees("COMMAND")
	s.tmux("resize-window", "-x", "80", "-y", "20")
	s.types("q")
	s.sees("workspace$")                                                          // only now: top throws away what was typed before it ended (TCSAFLUSH)
	s.types("clear; until stty size | grep '^20 8'; do sleep 0.1; done", "Enter") // the size and what is typed go separate ways
	s.sees("20 80")
	s.types("sleep 4004", "Enter")
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		out, err := shared.command("ps", id)
		if err == nil && strings.Contains(out, "sleep 4004") {
			break
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("sleep does not start: %v\n%s", err, out)
		}
	}
	s.types("C-c")
	s.sees("^C")
	s.types("echo interrupted $((40+2))", "Enter")
	s.sees("interrupted 42")
	s.types("nohup sleep 4005 >/dev/null 2>&1 &", "Enter")
	s.types("exit 7", "Enter")
	s.sees("ended with 7")
	out, err := shared.command("ps", id)
	if err != nil || !strings.Contains(out, "sleep 4005") {
		t.Errorf("what was told to stay: %v\n%s", err, out)
	}
}

func TestExecInATerminal(t *testing.T) {
	s, _ := sit(t, "exec -it ID -- python3 -q")
	s.sees(">>>")
	s.types("import os; os.get_terminal_size()", "Enter")
	s.sees("columns=100, lines=30)\n>>>") // the prompt again: before it an end of input is a byte like any other
	s.types("C-d")
	s.sees("ended with 0")
}
