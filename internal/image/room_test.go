package image

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"outpost.run/outpost/sandbox"
)

func TestImagesUnderWayTakeHalfOfWhatIsFreeTogether(t *testing.T) {
	free := int64(1000 << 20)
	r := newDiskRoom("")
	r.free = func() (int64, error) { return free, nil }
	write := func(s *share, n int64) error {
		err := s.add(ofContent*n, n)
		if err == nil {
			free -= n // as the disk has it
		}
		return err
	}
	a, b := r.share(), r.share()
	if err := write(a, 100<<20); err != nil { // 300 of 500
		t.Fatal(err)
	}
	if err := write(b, 100<<20); sandbox.CodeOf(err) != sandbox.Capacity {
		t.Errorf("600 of 500: %v", err)
	}
	b.end()
	if err := write(b, 66<<20); err != nil { // 498 of 500
		t.Errorf("the disk is counted twice: %v", err)
	}
	if err := b.add(ofLinks<<20, 0); err != nil {
		t.Errorf("to the last MiB: %v", err)
	}
	if err := b.add(ofLinks<<20, 0); sandbox.CodeOf(err) != sandbox.Capacity {
		t.Errorf("over the last MiB: %v", err)
	}
	a.end()
	b.end()
	if r.promised != 0 || r.written != 0 {
		t.Errorf("left: %d, %d", r.promised, r.written)
	}
}

func TestStreamsEndWhereTheDiskIsTooFull(t *testing.T) {
	h := newHub(t, nil)
	s := h.store(t, Options{})
	free := int64(0)
	s.room.free = func() (int64, error) { return free - s.room.written, nil } // called while the room is locked
	one := func(seed string) []byte { return archive(t, file{name: seed, text: strings.Repeat(seed, 1<<20)}) }
	linked := archive(t, file{name: "a", text: strings.Repeat("a", 1<<20)}, file{name: "b", header: of('1', "a")})
	for i, tc := range []struct {
		name string
		free int64
		ok   bool
		try  func(ref string) error
	}{
		{"a layer that needs three times its content", 6<<20 - 1, false, func(ref string) error {
			_, err := s.Ensure(t.Context(), h.push(t, ref, picture(t, v1.Config{}, one("x"))), nil)
			return err
		}},
		{"with room", 6 << 20, true, func(ref string) error {
			_, err := s.Ensure(t.Context(), h.push(t, ref, picture(t, v1.Config{}, one("x"))), nil)
			return err
		}},
		{"a second that needs it beside the first", 6 << 20, false, func(ref string) error {
			_, err := s.Ensure(t.Context(), h.push(t, ref, picture(t, v1.Config{}, one("y"), one("z"))), nil)
			return err
		}},
		{"links", 6 << 20, false, func(ref string) error {
			_, err := s.KeepTar(t.Context(), ref, bytes.NewReader(linked), Bounds{8 << 20, 10, 1 << 20})
			return err
		}},
		{"links with room", 10 << 20, true, func(ref string) error {
			_, err := s.KeepTar(t.Context(), ref, bytes.NewReader(linked), Bounds{8 << 20, 10, 1 << 20})
			return err
		}},
	} {
		free = tc.free
		if err := tc.try(fmt.Sprintf("i%d", i)); tc.ok && err != nil || !tc.ok && sandbox.CodeOf(err) != sandbox.Capacity {
			t.Errorf("%s: %v", tc.name, err)
		}
		if s.room.promised != 0 || s.room.written != 0 {
			t.Errorf("%s: left %d, %d", tc.name, s.room.promised, s.room.written)
		}
	}
}

func TestTreesShareTheMemoryThatLargeOnesNeed(t *testing.T) {
	r := newMemoryRoom()
	begun := func() *tree {
		x := newTree(Bounds{Files: 1 << 30, Meta: 1 << 30}, nil)
		x.memory = r.share()
		return x
	}
	fill := func(x *tree) error {
		for range 1 << 30 {
			if err := x.count(); err != nil {
				return err
			}
		}
		return nil
	}
	large, small := begun(), begun()
	if err := fill(large); sandbox.CodeOf(err) != sandbox.Capacity || large.entries < ofTrees/perEntry {
		t.Errorf("alone: %v after %d entries", err, large.entries)
	}
	if err := fill(small); sandbox.CodeOf(err) != sandbox.Capacity || small.entries < freely/perEntry || small.entries > freely/perEntry+1 {
		t.Errorf("beside it: %v after %d entries", err, small.entries)
	}
	large.memory.end()
	if err := small.hold(1); err != nil {
		t.Errorf("when it is over: %v", err)
	}
	small.memory.end()
	if r.promised != 0 {
		t.Errorf("left: %d", r.promised)
	}
}

func TestStreamOfManyFilesWaitsForMemory(t *testing.T) {
	s := emptyStore(t)
	s.memory.free = func() (int64, error) { return 0, nil }
	files := make([]file, freely/perEntry)
	for i := range files {
		files[i].name = fmt.Sprint(i)
	}
	bounds := Bounds{1 << 20, len(files) + 1, 1 << 20}
	if _, err := s.KeepTar(t.Context(), "many", bytes.NewReader(archive(t, files...)), bounds); sandbox.CodeOf(err) != sandbox.Capacity {
		t.Errorf("many: %v", err)
	}
	if _, err := s.KeepTar(t.Context(), "few", bytes.NewReader(archive(t, files[:100]...)), bounds); err != nil {
		t.Errorf("few: %v", err)
	}
}
