package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
)

// BareRun is one run of a program without isolation.
type BareRun struct {
	Image   string `json:"image"`   // its reference
	Program string `json:"program"` // one of those in programs
	Plan    Plan   `json:"plan"`
}

type bareAnswer struct {
	Sample Sample `json:"sample"`
	Error  string `json:"error"`
}

// Bare is a process of its own that starts programs without isolation: through the image, mounted where nobody else sees
// it, or of the host. It ends with its input.
type Bare struct {
	cmd     *exec.Cmd
	to      io.WriteCloser
	answers *bufio.Reader
}

// StartBare starts cmd, whose program calls ServeBare.
func StartBare(cmd *exec.Cmd) (*Bare, error) {
	to, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Bare{cmd, to, bufio.NewReader(from)}, nil
}

// Run runs a program as often as its plan says.
func (b *Bare) Run(r BareRun) (Sample, error) {
	if err := json.NewEncoder(b.to).Encode(r); err != nil {
		return Sample{}, fmt.Errorf("the bare side has ended: %w", err)
	}
	line, err := b.answers.ReadBytes('\n')
	if err != nil {
		return Sample{}, fmt.Errorf("the bare side ended: %w", err)
	}
	var a bareAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return Sample{}, err
	}
	if a.Error != "" {
		return a.Sample, fmt.Errorf("bare %s: %s", r.Program, a.Error)
	}
	return a.Sample, nil
}

// Close ends the process.
func (b *Bare) Close() error {
	_ = b.to.Close() // it ends with its input, or has ended
	return b.cmd.Wait()
}

// ServeBare answers the runs that it reads until they end.
func ServeBare(ctx context.Context, roots *Roots, in io.Reader, out io.Writer) error {
	lines, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r BareRun
		if err := lines.Decode(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		sample, err := roots.run(ctx, r)
		a := bareAnswer{Sample: sample}
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}
