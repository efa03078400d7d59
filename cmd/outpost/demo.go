package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/sandbox"
)

// demoProgram shows what a program sees of its machine.
const demoProgram = `import os, platform, socket
print("Hello from Python", platform.python_version(), "in a sandbox of its own.")
print("user", os.getuid(), "| processes", sum(n.isdigit() for n in os.listdir("/proc")),
      "| CPUs", os.cpu_count(), "| network interfaces", [name for _, name in socket.if_nameindex()])
`

func demoCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Start a server, create a sandbox, run a program in it, show both answers, stop the server",
		Args:  asUsed,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				var err error
				if dir, err = ownDataDir("demo"); err != nil {
					return err
				}
			}
			words := cmd.OutOrStdout()
			if asJSON(cmd) {
				words = cmd.ErrOrStderr()
			}
			answers, err := demo(cmd.Context(), dir, newProgress(cmd.ErrOrStderr()), words)
			if err != nil || !asJSON(cmd) {
				return err
			}
			return printJSON(cmd.OutOrStdout(), answers)
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "where the server keeps its state and images (default outpost/demo in your cache folder)")
	return cmd
}

// demoAnswers are both answers as they came.
type demoAnswers struct {
	Sandbox json.RawMessage `json:"sandbox"`
	Result  json.RawMessage `json:"result"`
}

func demo(ctx context.Context, dir string, how *progress, out io.Writer) (demoAnswers, error) {
	began := time.Now()
	defer how.end()
	out = how.above(out)
	fmt.Fprintf(out, "Starting a server on %s …\n", dir)
	s, err := startServer(ctx, dir, out)
	if err != nil {
		return demoAnswers{}, err
	}
	answers, err := demoCalls(ctx, s, how, out)
	fmt.Fprintln(out, "\nStopping the server …")
	if err := errors.Join(err, s.stop(ctx)); err != nil {
		return answers, err
	}
	fmt.Fprintf(out, "Done in %.1f s; the server has ended.\n", time.Since(began).Seconds())
	return answers, nil
}

// demoCalls creates, executes and deletes, and fails unless the program said what it should.
func demoCalls(ctx context.Context, s *ownServer, how *progress, out io.Writer) (answers demoAnswers, err error) {
	base := "/auth/v1/seed/" + s.Namespace() + "/sandbox"
	var box sandbox.Sandbox
	create := map[string]any{"language": "python", "name": "demo"}
	for {
		how.say("waiting for a machine", 0, 0)
		answers.Sandbox, err = show(ctx, s, out, base, create, &box)
		if sandbox.CodeOf(err) != sandbox.ImagePreparing {
			if err != nil {
				return answers, err
			}
			break
		}
		fmt.Fprintf(out, "%s\n", inWords(err)) // the create call waited already
		if err := pause(ctx, time.Second); err != nil {
			return answers, err
		}
	}
	how.end()
	var result sandbox.ExecResult
	if answers.Result, err = show(ctx, s, out, base+"/"+box.ID+"/exec", map[string]any{"code": demoProgram}, &result); err != nil {
		return answers, err
	}
	fmt.Fprintf(out, "\nThe program's output:\n%s", result.Stdout)
	if result.ExitCode != 0 || !bytes.Contains([]byte(result.Stdout), []byte("Hello from Python")) {
		return answers, fmt.Errorf("the program ended with %d and said %q", result.ExitCode, result.Stderr)
	}
	return answers, s.Delete(ctx, box.ID)
}

// show makes one call and prints request and answer as they travel.
func show(ctx context.Context, s *ownServer, out io.Writer, path string, body map[string]any, answer any) (json.RawMessage, error) {
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "\nPOST %s%s\n%s\n", s.Address(), path, text)
	began := time.Now()
	raw, err := s.Raw(ctx, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(raw), "", "  "); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "answer after %.1f ms:\n%s\n", float64(time.Since(began).Microseconds())/1000, pretty.String())
	return raw, json.Unmarshal(raw, answer)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
