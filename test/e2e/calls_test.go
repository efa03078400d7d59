package e2e_test

import (
	"context"
	"strings"
	"testing"

	"outpost.run/outpost/sandbox"
)

var presets = []sandbox.Preset{sandbox.Development, sandbox.Standard, sandbox.Maximum}

// box makes a sandbox that goes with the test.
func (s *server) box(t *testing.T, r sandbox.CreateRequest) sandbox.Sandbox {
	t.Helper()
	if r.Language == nil {
		r.Language = new("python")
	}
	made, err := s.Create(t.Context(), r)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		err := s.Delete(context.Background(), made.ID)
		if err != nil && sandbox.CodeOf(err) != sandbox.NotFound {
			t.Errorf("delete: %v", err)
		}
	})
	return made
}

func stateful() sandbox.CreateRequest { return sandbox.CreateRequest{Mode: new("stateful")} }

// python runs a program in a sandbox.
func (s *server) python(t *testing.T, id, code string) sandbox.ExecResult {
	t.Helper()
	r, err := s.Exec(t.Context(), id, sandbox.ExecRequest{Code: &code})
	if err != nil {
		t.Fatalf("exec: %v", err)
	}
	return r
}

// once runs a program in a fresh machine.
func (s *server) once(t *testing.T, r sandbox.ExecuteRequest, code string) sandbox.ExecResult {
	t.Helper()
	r.Language, r.Code = new("python"), &code
	result, err := s.Execute(t.Context(), r)
	if err != nil {
		t.Fatalf("execute: %v", err)
	}
	return result
}

func in(p sandbox.Preset) sandbox.ExecuteRequest {
	return sandbox.ExecuteRequest{Security: &sandbox.SecurityRequest{Preset: new(string(p))}}
}

// clean fails the test unless the program ended by itself with code 0 and says what it printed.
func clean(t *testing.T, r sandbox.ExecResult) string {
	t.Helper()
	if r.ExitCode != 0 || r.TerminationReason != sandbox.Exited {
		t.Fatalf("ended as %s with %d\nstdout: %s\nstderr: %s", r.TerminationReason, r.ExitCode, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// findings is for programs that print a line for each thing that is wrong and nothing else.
func findings(t *testing.T, r sandbox.ExecResult) {
	t.Helper()
	if out := clean(t, r); out != "" {
		t.Error(out)
	}
}

// answersMeanwhile runs a hostile program in a fresh machine while another sandbox must go on answering.
func answersMeanwhile(t *testing.T, s *server, r sandbox.ExecuteRequest) sandbox.ExecResult {
	t.Helper()
	other := s.box(t, stateful())
	type answer struct {
		result sandbox.ExecResult
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		result, err := s.Execute(t.Context(), r)
		done <- answer{result, err}
	}()
	for {
		if out := clean(t, s.python(t, other.ID, "print('here')")); out != "here" {
			t.Fatalf("the other sandbox answered %q", out)
		}
		select {
		case a := <-done:
			if a.err != nil {
				t.Fatalf("execute: %v", a.err)
			}
			return a.result
		default:
		}
	}
}
