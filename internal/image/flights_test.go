package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"outpost.run/outpost/sandbox"
)

func TestOneNamespaceDoesNotTakeAllPulls(t *testing.T) {
	h := newHub(t, nil)
	s := h.store(t, Options{})
	hold, asked := make(chan struct{}), make(chan string, 100)
	var refs []string
	for i := range flightsOfOne + 1 {
		refs = append(refs, h.push(t, fmt.Sprintf("slow:%d", i), small(t, fmt.Sprint("slow", i))))
	}
	quick := h.push(t, "quick:1", small(t, "quick"))
	h.answer(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.Contains(r.URL.Path, "/slow/") {
			asked <- r.URL.Path
			<-hold
		}
		return false
	})
	greedy, other := Asker{Namespace: "greedy"}, Asker{Namespace: "other"}
	waits, stop := context.WithCancel(t.Context())
	defer stop()
	var pulls sync.WaitGroup
	errs := make(chan error, len(refs))
	for _, ref := range refs[:flightsOfOne] {
		under := make(chan struct{})
		pulls.Go(func() {
			_, err := s.EnsureFor(waits, greedy, ref, func(Progress) {
				select {
				case <-under:
				default:
					close(under)
				}
			})
			errs <- err
		})
		<-under
	}
	for range pullsOfOne {
		<-asked
	}
	var e *sandbox.Error
	if _, err := s.EnsureFor(t.Context(), greedy, refs[flightsOfOne], nil); !errors.As(err, &e) || e.Code != sandbox.Capacity || e.RetryAfterSecs == 0 {
		t.Errorf("one more: %v", err)
	}
	if _, err := s.EnsureFor(t.Context(), other, quick, nil); err != nil {
		t.Errorf("another namespace's: %v", err)
	}
	if len(asked) > 0 {
		t.Errorf("it pulls more than %d at once", pullsOfOne)
	}
	close(hold)
	pulls.Wait()
	for range flightsOfOne {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := s.EnsureFor(t.Context(), greedy, refs[flightsOfOne], nil); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	if len(s.flying)+len(s.flights)+len(s.pulls.own) > 0 {
		t.Errorf("left: %v, %v, %v", s.flying, s.flights, s.pulls.own)
	}
}

// impatient makes pulls end soon when nobody waits.
func impatient(t *testing.T) {
	was := forsakenAfter
	forsakenAfter = 100 * time.Millisecond
	t.Cleanup(func() { forsakenAfter = was })
}

func TestPullEndsWhenNobodyWaits(t *testing.T) {
	impatient(t)
	h := newHub(t, nil)
	ref := h.push(t, "a", small(t, "a"))
	asked, gone := make(chan struct{}, 10), make(chan struct{})
	var once sync.Once
	h.answer(func(w http.ResponseWriter, r *http.Request, content []byte) bool {
		first := false
		once.Do(func() { first = true })
		if !first {
			return false
		}
		_, _ = w.Write(content[:10])
		w.(http.Flusher).Flush()
		asked <- struct{}{}
		<-r.Context().Done()
		close(gone)
		return true
	})
	s := h.store(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { _, err := s.EnsureFor(ctx, Asker{Namespace: "a"}, ref, nil); ended <- err }()
	<-asked
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-gone // or the test never ends
	if _, err := s.EnsureFor(t.Context(), Asker{Namespace: "b"}, ref, nil); err != nil {
		t.Errorf("who comes after: %v", err)
	}
}

func TestPullGoesOnWhileSomebodyWaits(t *testing.T) {
	impatient(t)
	h := newHub(t, nil)
	ref := h.push(t, "a", small(t, "a"))
	asked, hold := make(chan struct{}, 10), make(chan struct{})
	h.answer(func(http.ResponseWriter, *http.Request, []byte) bool { asked <- struct{}{}; <-hold; return false })
	s := h.store(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() { _, err := s.Ensure(ctx, ref, nil); first <- err }()
	<-asked
	joined := make(chan struct{})
	go func() {
		var once sync.Once
		_, err := s.Ensure(t.Context(), ref, func(Progress) { once.Do(func() { close(joined) }) })
		second <- err
	}()
	<-joined
	cancel()
	<-first
	time.Sleep(3 * forsakenAfter) // it would be over by then
	close(hold)
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestPullThatTricklesEnds(t *testing.T) {
	was, wasFor := slowest, paceFor
	slowest, paceFor = 1<<20, 300*time.Millisecond
	t.Cleanup(func() { slowest, paceFor = was, wasFor })
	h := newHub(t, nil)
	ref := h.push(t, "a", small(t, "a"))
	h.answer(func(w http.ResponseWriter, r *http.Request, content []byte) bool { // 100 KB a second at most, and whole in the end
		if len(content) < 10_000 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		for ; len(content) > 0 && r.Context().Err() == nil; time.Sleep(10 * time.Millisecond) {
			n := min(1000, len(content))
			_, _ = w.Write(content[:n])
			w.(http.Flusher).Flush()
			content = content[n:]
		}
		return true
	})
	if _, err := h.store(t, Options{}).Ensure(t.Context(), ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound || !strings.Contains(fmt.Sprint(err), "KiB a second") {
		t.Error(err)
	}
}

// panicking gives bodies that make who reads them panic.
type panicking struct{ http.RoundTripper }

func (p panicking) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.RoundTripper.RoundTrip(r)
	if err == nil && strings.Contains(r.URL.Path, "/blobs/") {
		resp.Body = hostile{}
	}
	return resp, err
}

type hostile struct{}

func (hostile) Read([]byte) (int, error) { panic("a hostile image") }
func (hostile) Close() error             { return nil }

func TestImageThatMakesAReaderPanicEndsNothing(t *testing.T) {
	h := newHub(t, nil)
	ref := h.push(t, "a", small(t, "a"))
	s := h.store(t, Options{})
	sound := s.transport
	s.transport = panicking{sound}
	if _, err := s.Ensure(t.Context(), ref, nil); sandbox.CodeOf(err) != sandbox.ImageNotFound || !strings.Contains(fmt.Sprint(err), "can't be read") {
		t.Error(err)
	}
	s.transport = sound
	if _, err := s.Ensure(t.Context(), ref, nil); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestTurnsAreSharedByNamespaces(t *testing.T) {
	turns := newTurns(0, 1)
	first, err := turns.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.take(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second of one namespace: %v", err)
	}
	other, err := turns.take(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	first()
	again, err := turns.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	again()
	other()
	if len(turns.own) > 0 {
		t.Errorf("remembered: %v", turns.own)
	}
}
