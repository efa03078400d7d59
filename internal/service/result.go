package service

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"outpost.run/outpost/sandbox"
)

// head keeps the first bytes that are written to it, and takes the rest without keeping it.
type head struct {
	most int
	kept []byte
}

func (h *head) Write(b []byte) (int, error) {
	room := min(len(b), h.most-len(h.kept))
	h.kept = append(h.kept, b[:room]...)
	return len(b), nil
}

// text gives what was kept: base64, or UTF-8 in which every byte that is none became U+FFFD. A character that the limit
// cut in two is left out.
func (h *head) text(encoded, truncated bool) string {
	if encoded {
		return base64.StdEncoding.EncodeToString(h.kept)
	}
	b := h.kept
	if truncated {
		b = wholeCharacters(b)
	}
	if utf8.Valid(b) {
		return string(b)
	}
	var text strings.Builder
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b) // RuneError, which is U+FFFD, for a byte that is none
		text.WriteRune(r)
		b = b[size:]
	}
	return text.String()
}

// wholeCharacters drops an unfinished character at the end.
func wholeCharacters(b []byte) []byte {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return b[:i]
			}
			return b
		}
	}
	return b
}

func resultOf(id, sandboxID string, o ExecOutcome, stdout, stderr *head, encoded bool) sandbox.ExecResult {
	r := sandbox.ExecResult{
		ID: id, SandboxID: sandboxID, ExitCode: o.ExitCode, TerminationReason: o.Reason,
		TimedOut: o.Reason == sandbox.TimedOut, OOMKilled: o.Reason == sandbox.OOMKilled,
		StdoutTruncated: o.StdoutBytes > int64(len(stdout.kept)), StderrTruncated: o.StderrBytes > int64(len(stderr.kept)),
		StdoutBytes: o.StdoutBytes, StderrBytes: o.StderrBytes, DurationMS: o.DurationMS, Start: o.Start,
		Timings: o.Timings, Usage: o.Usage, Files: map[string]sandbox.FileContent{}, DepsResolved: o.DepsResolved, Isolation: o.Isolation,
	}
	r.Stdout, r.Stderr = stdout.text(encoded, r.StdoutTruncated), stderr.text(encoded, r.StderrTruncated)
	if o.Signal != "" {
		r.Signal = &o.Signal
	}
	for _, f := range o.Files {
		r.Files[f.Path] = f.Content
	}
	if r.DepsResolved == nil {
		r.DepsResolved = []string{}
	}
	r.Isolation.Requested = nil
	if r.Isolation.Effective == nil {
		r.Isolation.Effective = []string{}
	}
	if r.Isolation.Missing == nil {
		r.Isolation.Missing = []string{}
	}
	return r
}
