package agent_test

import (
	"bufio"
	"io"
	"math"
	"net"
	"strings"
	"testing"

	"outpost.run/outpost/internal/agent"
	"outpost.run/outpost/sandbox"
)

// answers is a connection to an agent that reads all and sends what it was told to, whatever it is asked.
func answers(t *testing.T, send func(w io.Writer)) *agent.Conn {
	t.Helper()
	ours, its := net.Pipe()
	t.Cleanup(func() { ours.Close(); its.Close() })
	go func() { _, _ = io.Copy(io.Discard, its) }()
	go func() {
		w := bufio.NewWriter(its)
		send(w)
		_ = w.Flush()
	}()
	return agent.NewConn(ours)
}

func TestAnAgentThatLiesAboutSizesIsALostMachine(t *testing.T) {
	for _, sizes := range [][]int64{{-1}, {math.MaxInt64}, {1, math.MaxInt64}, {agent.MaxCollect, agent.MaxCollect, agent.MaxCollect}} {
		c := answers(t, func(w io.Writer) {
			_ = agent.WriteFrame(w, agent.KindBegin, nil)
			_ = agent.WriteJSON(w, agent.KindExit, agent.Exit{})
			for _, size := range sizes {
				_ = agent.WriteJSON(w, agent.KindFile, agent.FileHeader{Path: "x", Size: size})
			}
			_ = agent.WriteFrame(w, agent.KindComplete, nil)
		})
		_, _, err := c.Run(agent.Run{}, agent.Feed{Started: func() {}, Exited: func(agent.Exit) {}})
		if sandbox.CodeOf(err) != sandbox.Lost {
			t.Errorf("files of %v bytes: %v", sizes, err)
		}
	}
}

// found counts what a call on files brings.
type found int

// Write implements agent.FileSink.
func (n *found) Write(b []byte) (int, error) { return len(b), nil }

// Found implements agent.FileSink.
func (n *found) Found(sandbox.FileInfo) error { *n++; return nil }

func TestAListIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		verb sandbox.FileVerb
		each sandbox.FileInfo
		want sandbox.Code
	}{
		"in bytes":             {sandbox.ListFolder, sandbox.FileInfo{Name: strings.Repeat("x", 50_000)}, sandbox.FileTooLarge},
		"in entries":           {sandbox.ListFolder, sandbox.FileInfo{}, sandbox.Lost},
		"to one for a file":    {sandbox.GetFile, sandbox.FileInfo{}, sandbox.Lost},
		"to sizes that can be": {sandbox.ListFolder, sandbox.FileInfo{Size: -1}, sandbox.Lost},
	} {
		conn := answers(t, func(w io.Writer) {
			for agent.WriteJSON(w, agent.KindFile, c.each) == nil {
			}
		})
		var n found
		if err := conn.Files(agent.FileOp{Verb: c.verb}, nil, &n); sandbox.CodeOf(err) != c.want || int(n) > agent.MaxEntries {
			t.Errorf("%s: %v after %d", name, err, n)
		}
	}
}
