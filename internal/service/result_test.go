package service

import (
	"encoding/json"
	"strings"
	"testing"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/internal/spool"
	"outpost.run/outpost/sandbox"
)

func TestTimesOfAResultEndWithMicroseconds(t *testing.T) {
	s, err := spool.Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	e := newExecs(s, 1<<10, nil, nil).open("default", "sb_1", false, ExecSpec{ID: "exec_1"}, policy.Exec{}, func() {})
	a, b := 0.1, 0.2
	text, err := json.Marshal(resultOf(e, ExecOutcome{DurationMS: a + b, Timings: sandbox.Timings{RunMS: a + b, QueueMS: 7.1234567}}))
	if err != nil || !strings.Contains(string(text), `"duration_ms":0.3,`) || !strings.Contains(string(text), `"run_ms":0.3}`) || !strings.Contains(string(text), `"queue_ms":7.123,`) {
		t.Errorf("%s, %v", text, err)
	}
}
