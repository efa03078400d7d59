package audit

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// full takes so many bytes, and then none, as a full disk does.
type full struct {
	bytes.Buffer
	room int
}

func (f *full) Write(b []byte) (int, error) {
	n := min(f.room, len(b))
	f.room -= n
	f.Buffer.Write(b[:n])
	if n < len(b) {
		return n, errors.New("no space left")
	}
	return n, nil
}

func (*full) Close() error { return nil }

func TestALineThatBrokeOffSpoilsNoOther(t *testing.T) {
	disk := &full{room: 20}
	said := 0
	l := &Log{to: disk, told: func(err error) {
		if err != nil {
			said++
		}
	}}
	for range 2 {
		if l.Write(Entry{Action: "lost"}) == nil {
			t.Error("a full disk took it")
		}
	}
	disk.room = 1 << 20
	for range 2 {
		if err := l.Write(Entry{Action: "kept"}); err != nil {
			t.Error(err)
		}
	}
	all := strings.Split(strings.TrimSuffix(disk.String(), "\n"), "\n")
	if len(all) != 3 || !strings.HasSuffix(all[1], "}") || !strings.Contains(all[1], "kept") || all[1] != all[2] || said != 2 {
		t.Errorf("%q; told of %d failures", all, said)
	}
}
