package service

import (
	"math"
	"strings"
	"unicode/utf8"

	"outpost.run/outpost/sandbox"
)

// Text is output as UTF-8 in which every byte that is none became U+FFFD.
func Text(b []byte) string {
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

// WholeCharacters drops an unfinished character at the end.
func WholeCharacters(b []byte) []byte {
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

// toMicros rounds milliseconds: what sums of them have beyond microseconds is noise.
func toMicros(ms float64) float64 { return math.Round(ms*1000) / 1000 }

// resultOf is the result of an exec, without its output.
func resultOf(e *exec, o ExecOutcome) sandbox.ExecResult {
	r := sandbox.ExecResult{
		ID: e.ID, SandboxID: e.SandboxID, ExitCode: o.ExitCode, TerminationReason: o.Reason,
		TimedOut: o.Reason == sandbox.TimedOut, OOMKilled: o.Reason == sandbox.OOMKilled,
		StdoutTruncated: o.StdoutBytes > int64(len(e.Stdout.Head(e.most))), StderrTruncated: o.StderrBytes > int64(len(e.Stderr.Head(e.most))),
		StdoutBytes: o.StdoutBytes, StderrBytes: o.StderrBytes, DurationMS: toMicros(o.DurationMS), Start: o.Start,
		Timings: o.Timings, Usage: o.Usage, Files: map[string]sandbox.FileContent{}, DepsResolved: o.DepsResolved, Isolation: o.Isolation,
	}
	for _, ms := range []*float64{&r.Timings.QueueMS, &r.Timings.PrepareMS, &r.Timings.DepsMS, &r.Timings.RunMS, &r.Usage.CPUMS} {
		*ms = toMicros(*ms)
	}
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
