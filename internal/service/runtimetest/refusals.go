package runtimetest

import (
	"bytes"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// refusals are cases on errors; each names its code and what is left.
var refusals = []testCase{
	{"what can't be had is refused by Create, and nothing of it is left", func(s *suite) {
		for _, tc := range []struct {
			name   string
			change func(*service.SandboxSpec)
			want   sandbox.Code
		}{
			{"a user that the image lacks", func(x *service.SandboxSpec) { x.Security.User = "no-such-user" }, sandbox.UserNotFound},
			{"an image without the interpreter", func(x *service.SandboxSpec) { x.Image = s.Bash }, sandbox.LanguageRuntimeMissing},
			{"a directory below a file", func(x *service.SandboxSpec) { x.WorkingDir = "/etc/passwd/x" }, sandbox.Invalid},
			{"no image at all", func(x *service.SandboxSpec) { x.Image = "deb:no-such-suite" }, sandbox.ImageNotFound},
		} {
			for _, mode := range modes {
				spec := s.spec(mode)
				tc.change(&spec)
				_, err := s.r.Create(s.t.Context(), spec)
				s.refused(tc.name, err, tc.want)
				_, err = s.r.Inspect(s.t.Context(), spec.ID)
				s.refused("Inspect of "+tc.name, err, sandbox.NotFound)
			}
		}
		if left := s.Left(s.t); len(left) > 0 {
			s.t.Errorf("left on the host: %v", left)
		}
	}},
	{"an exec that can't be had is refused, and the sandbox lives on", func(s *suite) {
		file := func(path string, size int) program {
			return program{code: "print(1)", files: []service.File{{Path: path, Content: bytes.Repeat([]byte("x"), size)}}}
		}
		for _, mode := range modes {
			spec := s.spec(mode)
			spec.Limits.DiskMB = 16
			id := s.create(spec)
			for _, tc := range []struct {
				name string
				p    program
				want sandbox.Code
			}{
				{"an unknown user", program{code: "print(1)", user: "no-such-user"}, sandbox.UserNotFound},
				{"a directory below a file", program{code: "print(1)", dir: "/etc/passwd/x"}, sandbox.Invalid},
				{"a file where the user may not write", file("/etc/x", 1), sandbox.Invalid},
				{"a file below a file", file("/etc/passwd/x", 1), sandbox.Invalid},
				{"a file larger than the disk", file("x", 32<<20), sandbox.DiskFull},
				{"over 8 MiB to collect", program{code: "open('big', 'wb').write(b'x' * (9 << 20))", collect: []string{"big"}}, sandbox.CollectTooLarge},
			} {
				p := tc.p
				p.limits = spec.Limits
				p.limits.TimeoutMS = Limits.TimeoutMS
				_, err := s.try(s.t.Context(), id, p)
				s.refused(string(mode)+": "+tc.name, err, tc.want)
				s.run(id, program{command: []string{"sh", "-c", "rm -f x big"}, limits: p.limits})
			}
		}
	}},
	{"a language that the image lacks is refused by Exec", func(s *suite) {
		for _, mode := range modes {
			spec := s.spec(mode)
			spec.Language, spec.Image = "bash", s.Bash
			id := s.create(spec)
			_, err := s.try(s.t.Context(), id, program{language: "python", code: "print(1)"})
			s.refused(string(mode), err, sandbox.LanguageRuntimeMissing)
			s.says(id, program{code: "echo lives"}, "lives")
		}
	}},
	{"a sandbox that is not there is not found", func(s *suite) {
		_, err := s.r.Inspect(s.t.Context(), "sb_000000000000")
		s.refused("Inspect", err, sandbox.NotFound)
		_, err = s.try(s.t.Context(), "sb_000000000000", program{code: "print(1)"})
		s.refused("Exec", err, sandbox.NotFound)
		if err := s.r.Delete(s.t.Context(), "sb_000000000000"); err != nil {
			s.t.Error("Delete:", err)
		}
	}},
	{"telling twice which sandboxes exist is refused, and changes nothing", func(s *suite) {
		id := s.create(s.spec(sandbox.Stateful))
		_, err := s.r.Sync(s.t.Context(), nil)
		s.refused("Sync again", err, sandbox.Conflict)
		s.says(id, program{code: "print('lives')"}, "lives")
	}},
}
