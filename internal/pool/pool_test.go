package pool_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outpost.run/outpost/internal/pool"
)

// works makes things and knows what became of them.
type works struct {
	t     *testing.T
	takes time.Duration // to make one
	bytes int64
	fails atomic.Bool
	low   atomic.Bool

	mu    sync.Mutex
	made  map[string]int
	alive map[*thing]bool
}

type thing struct {
	of   *works
	key  string
	dead atomic.Bool
	over atomic.Bool
}

func (t *thing) Alive() bool   { return !t.dead.Load() }
func (t *thing) Memory() int64 { return t.of.bytes }
func (t *thing) End() {
	if t.over.Swap(true) {
		t.of.t.Errorf("a %s was ended twice", t.key)
	}
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	delete(t.of.alive, t)
}

func (w *works) maker(key string) pool.Make {
	return func(ctx context.Context) (pool.Item, error) {
		select {
		case <-time.After(w.takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.made[key]++
		if w.fails.Load() {
			return nil, errors.New("as the test wants")
		}
		t := &thing{of: w, key: key}
		w.alive[t] = true
		return t, nil
	}
}

// there are the things that nobody has ended.
func (w *works) there() map[*thing]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.alive)
}

func (w *works) count(key string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for t := range w.alive {
		if t.key == key {
			n++
		}
	}
	return n
}

func (w *works) tried(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[key]
}

// bench is a pool in a bubble of synctest, in which time passes when everyone waits.
type bench struct {
	*works
	*pool.Pool
	t *testing.T
}

func in(t *testing.T, change func(*pool.Options, *works), f func(b bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &works{t: t, takes: 10 * time.Millisecond, bytes: 1 << 20, made: map[string]int{}, alive: map[*thing]bool{}}
		o := pool.Options{MaxIdle: 32, MaxBytes: 1 << 30, Makers: 1, Low: w.low.Load, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		if change != nil {
			change(&o, w)
		}
		p := pool.New(o)
		f(bench{w, p, t})
		p.Close()
		for thing := range w.there() {
			t.Errorf("after Close a %s is left", thing.key)
		}
		if s := p.State(); s.Idle != 0 || s.Making != 0 || s.Bytes != 0 {
			t.Errorf("after Close it says %+v", s)
		}
	})
}

func (b bench) get(ctx context.Context, key, owner string, maker pool.Make) pool.Item {
	item, _ := b.Take(ctx, key, owner, maker)
	return item
}

// take asks, lets the makers come to rest, and gives up what it got.
func (b bench) take(key, owner string) bool {
	item := b.get(b.t.Context(), key, owner, b.maker(key))
	b.rest()
	if item != nil {
		item.End()
	}
	return item != nil
}

// drain takes all that there are and asks for one more, lets the makers come to rest, and gives up what it got.
func (b bench) drain(key, owner string) {
	var got []pool.Item
	for item := b.get(b.t.Context(), key, owner, b.maker(key)); item != nil; item = b.get(b.t.Context(), key, owner, b.maker(key)) {
		got = append(got, item)
	}
	b.rest()
	for _, item := range got {
		item.End()
	}
}

// rest is long enough to make what is wanted, and too short for any to be given up.
func (b bench) rest() { time.Sleep(2 * time.Second); synctest.Wait() }

func (b bench) idles(want int, keys ...string) {
	b.t.Helper()
	total := 0
	for _, k := range keys {
		total += b.count(k)
	}
	if s := b.State(); s.Idle != want || total != want {
		b.t.Errorf("%d idle, %d of %v there, want %d: %+v", s.Idle, total, keys, want, s)
	}
}

func TestASpareOneIsTakenWithoutMoreBeingMade(t *testing.T) {
	in(t, nil, func(b bench) {
		if b.Spare("a") != nil {
			t.Error("of a key that nobody asked for")
		}
		if _, kept := b.Take(t.Context(), "a", "one", b.maker("a")); kept {
			t.Error("kept from the first ask on")
		}
		if _, kept := b.Take(t.Context(), "a", "one", b.maker("a")); !kept {
			t.Error("not kept from the second ask on")
		}
		b.rest()
		tried := b.tried("a")
		for range 4 {
			if item := b.Spare("a"); item != nil {
				item.End()
			}
		}
		if s := b.State(); s.Idle != 0 || b.tried("a") > tried+2 {
			t.Errorf("%+v, made %d", s, b.tried("a"))
		}
	})
}

func TestAKeyIsKeptFromItsSecondAskOn(t *testing.T) {
	in(t, nil, func(b bench) {
		if b.take("a", "one") {
			t.Error("the first ask got something")
		}
		b.idles(0)
		if b.take("a", "one") {
			t.Error("the second ask got something")
		}
		b.idles(2, "a")
		if !b.take("a", "one") {
			t.Error("the third ask got nothing")
		}
		b.idles(2, "a") // what was taken is made anew
		if s := b.State(); s.Hits != 1 || s.Misses != 2 || s.Keys != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestEachAskThatFindsNoneDoublesTheShelf(t *testing.T) {
	in(t, nil, func(b bench) {
		b.take("a", "one")
		for _, want := range []int{2, 4, 8, 16, 32, 32} { // all there is
			for b.get(b.t.Context(), "a", "one", b.maker("a")) != nil { // all, and one more
			}
			b.rest()
			if s := b.State(); s.Idle != want {
				t.Errorf("%d idle, want %d", s.Idle, want)
			}
			for thing := range b.there() { // those that were taken are ours to end, the idle ones are made anew
				thing.dead.Store(true)
			}
			time.Sleep(15 * time.Second)
			b.rest()
			b.end()
		}
	})
}

// end ends what is dead and was not ended by the pool.
func (b bench) end() {
	for t := range b.there() {
		if t.dead.Load() {
			t.End()
		}
	}
}

func TestASharedKeyMayHaveAllOfThePool(t *testing.T) {
	in(t, nil, func(b bench) {
		for range 8 {
			for _, owner := range []string{"one", "two"} {
				b.drain("a", owner)
			}
		}
		b.idles(32, "a")
	})
}

func TestAnOwnerMayHaveAllThatNobodyElseAsksForAndGivesWayFirst(t *testing.T) {
	in(t, nil, func(b bench) {
		fill := func(key string) {
			for range 5 {
				b.drain(key, "one")
			}
		}
		fill("a")
		b.idles(16, "a")
		fill("b")
		b.idles(32, "a", "b") // all there is
		b.take("c", "two")
		b.take("c", "two") // what was asked for longest ago of who holds more than a quarter
		if n := b.count("c"); n != 2 || b.count("a") != 14 || b.count("b") != 16 {
			t.Errorf("%d of a, %d of b, %d of c", b.count("a"), b.count("b"), n)
		}
		b.take("d", "one")
		b.take("d", "one") // its own give way, nobody else's
		if n := b.count("d"); n != 2 || b.count("c") != 2 {
			t.Errorf("%d of d, %d of c", n, b.count("c"))
		}
	})
}

func TestOfAnOwnersKeysTheOldestGivesWayFirst(t *testing.T) {
	in(t, func(o *pool.Options, _ *works) { o.MaxIdle = 4 }, func(b bench) {
		for _, key := range []string{"a", "b", "c"} {
			b.take(key, "one")
			b.take(key, "one")
		}
		b.idles(4, "b", "c")
		b.take("b", "one")
		b.take("d", "one")
		b.take("d", "one")
		b.idles(4, "b", "d")
	})
}

func TestWhoHasNothingComesBeforeWhoLacksMore(t *testing.T) {
	in(t, func(_ *pool.Options, w *works) { w.takes = time.Second }, func(b bench) {
		for range 4 { // at once: its shelf is to hold 8
			b.get(b.t.Context(), "much", "one", b.maker("much"))
		}
		time.Sleep(1500 * time.Millisecond) // one is there, the second is being made
		b.get(b.t.Context(), "little", "two", b.maker("little"))
		b.get(b.t.Context(), "little", "two", b.maker("little"))
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if b.count("little") != 1 {
			t.Errorf("after one more was made there are %d of little, %d of much", b.count("little"), b.count("much"))
		}
	})
}

func TestEachMinuteHalfOfWhatWasNotNeededGoes(t *testing.T) {
	in(t, nil, func(b bench) {
		b.take("a", "one")
		b.take("a", "one")
		for b.count("a") < 8 {
			for range b.count("a") + 1 {
				if item := b.get(b.t.Context(), "a", "one", b.maker("a")); item != nil {
					item.End()
				}
			}
			b.rest()
		}
		counts := map[int]bool{}
		for range 5 * 60 { // one is needed now and then
			b.take("a", "one")
			counts[b.count("a")] = true
		}
		for _, want := range []int{8, 4, 2, 1} {
			if !counts[want] {
				t.Errorf("there were never %d: %v", want, counts)
			}
		}
		if n := b.count("a"); n == 0 || n > 2 {
			t.Errorf("%d are left for who asks for one at a time", n)
		}
	})
}

func TestAKeyThatNobodyAsksForIsForgotten(t *testing.T) {
	in(t, nil, func(b bench) {
		b.take("a", "one")
		b.take("a", "one")
		b.idles(2, "a")
		time.Sleep(3 * time.Minute)
		b.idles(0)
		if s := b.State(); s.Keys != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhereThePoolIsFullTheKeyThatWasAskedForLongestAgoGivesWay(t *testing.T) {
	in(t, func(o *pool.Options, _ *works) { o.MaxIdle = 4 }, func(b bench) {
		for n := range 6 {
			key := fmt.Sprint("key", n)
			b.take(key, key)
			b.take(key, key)
			if b.count(key) == 0 {
				t.Errorf("%s: none", key)
			}
		}
		if b.count("key0")+b.count("key1") > 0 {
			t.Errorf("%d of the first, %d of the second", b.count("key0"), b.count("key1"))
		}
		b.idles(4, "key2", "key3", "key4", "key5")
	})
}

func TestTheMemoryOfAllIsBounded(t *testing.T) {
	in(t, func(o *pool.Options, w *works) { o.MaxBytes, w.bytes = 5<<20, 2<<20 }, func(b bench) {
		for n := range 5 {
			key := fmt.Sprint("key", n)
			for range 3 {
				b.take(key, key)
				if s := b.State(); s.Bytes > 5<<20 {
					t.Errorf("%+v", s)
				}
			}
		}
		b.idles(2, "key4") // it was asked for last
		made := b.tried("key4")
		for range 20 {
			b.get(b.t.Context(), "key4", "key4", b.maker("key4")).End() // what is used is made anew
			b.rest()
		}
		if more := b.tried("key4") - made; more > 20+10 {
			t.Errorf("for 20 that were used %d were made, the others for nothing", more)
		}
	})
}

func TestAShortHostGetsAllBackAndIsGivenNothingToMake(t *testing.T) {
	in(t, nil, func(b bench) {
		for _, key := range []string{"a", "b"} {
			b.take(key, key)
			b.take(key, key)
		}
		b.idles(4, "a", "b")
		b.low.Store(true)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		b.idles(0)
		made := b.tried("a")
		for range 3 {
			if b.take("a", "a") || b.tried("a") != made {
				t.Error("something was made for a host without memory")
			}
		}
		b.low.Store(false)
		b.take("a", "a")
		b.rest()
		if b.count("a") == 0 {
			t.Error("nothing is made after it has memory again")
		}
	})
}

func TestMakingThatFailsIsTriedAgainLater(t *testing.T) {
	in(t, nil, func(b bench) {
		b.fails.Store(true)
		b.take("a", "one")
		b.take("a", "one")
		if n := b.tried("a"); n != 1 {
			t.Errorf("tried %d times within two seconds, want 1", n)
		}
		b.take("other", "two")
		b.fails.Store(false)
		b.take("other", "two") // others are not held up by it
		if b.count("other") == 0 {
			t.Error("another key waits for the one that failed")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if b.count("a") != 2 {
			t.Errorf("%d after it works again", b.count("a"))
		}
	})
}

func TestWhoAsksGetsWhatIsBeingMade(t *testing.T) {
	in(t, func(_ *pool.Options, w *works) { w.takes = 200 * time.Millisecond }, func(b bench) {
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		synctest.Wait() // one is being made
		began := time.Now()
		got := make(chan pool.Item, 2)
		go func() { got <- b.get(b.t.Context(), "a", "one", b.maker("a")) }()
		synctest.Wait()
		go func() { got <- b.get(b.t.Context(), "a", "one", b.maker("a")) }() // for this one nothing is made
		if item := <-got; item != nil {
			t.Error("two waited for one")
		}
		if time.Since(began) > 0 {
			t.Error("it waited for nothing")
		}
		item := <-got
		if item == nil || time.Since(began) != 200*time.Millisecond {
			t.Fatalf("who waited got %v after %v", item, time.Since(began))
		}
		item.End()
		if s := b.State(); s.Hits != 1 || s.Misses != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhoWaitsForWhatFailsGetsNothing(t *testing.T) {
	in(t, func(_ *pool.Options, w *works) { w.takes = time.Second; w.fails.Store(true) }, func(b bench) {
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		synctest.Wait()
		if b.get(b.t.Context(), "a", "one", b.maker("a")) != nil {
			t.Error("it got something")
		}
	})
}

func TestWhoNoLongerWaitsLeavesItToTheShelf(t *testing.T) {
	in(t, func(_ *pool.Options, w *works) { w.takes = time.Second }, func(b bench) {
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(b.t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if b.get(ctx, "a", "one", b.maker("a")) != nil || time.Since(began) != 100*time.Millisecond {
			t.Errorf("it got something, or waited for %v", time.Since(began))
		}
		time.Sleep(time.Minute / 4)
		synctest.Wait()
		if b.count("a") < 2 {
			t.Errorf("%d are kept", b.count("a"))
		}
	})
}

func TestWhatDiedIsNeverGiven(t *testing.T) {
	in(t, nil, func(b bench) {
		b.take("a", "one")
		b.take("a", "one")
		for thing := range b.there() {
			thing.dead.Store(true)
		}
		if item := b.get(b.t.Context(), "a", "one", b.maker("a")); item != nil {
			t.Error("a dead one was given")
		}
		b.rest()
		for thing := range b.there() {
			if thing.dead.Load() {
				t.Error("a dead one is kept")
			}
			thing.dead.Store(true)
		}
		time.Sleep(15 * time.Second) // they are looked for, too
		synctest.Wait()
		for thing := range b.there() {
			if thing.dead.Load() {
				t.Error("a dead one is kept")
			}
		}
	})
}

func TestAPoolOfNoneAndAClosedOneGiveNothing(t *testing.T) {
	in(t, func(o *pool.Options, _ *works) { o.MaxIdle = 0 }, func(b bench) {
		for range 5 {
			if b.take("a", "one") {
				t.Error("it gave something")
			}
		}
	})
	in(t, nil, func(b bench) {
		b.take("a", "one")
		b.take("a", "one")
		b.Close()
		if b.take("a", "one") {
			t.Error("a closed one gave something")
		}
		b.idles(0)
	})
}

func TestCloseWaitsForWhatIsBeingMade(t *testing.T) {
	in(t, func(o *pool.Options, w *works) { w.takes, o.Makers = time.Hour, 3 }, func(b bench) {
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		b.get(b.t.Context(), "a", "one", b.maker("a"))
		synctest.Wait()
		got := make(chan pool.Item)
		go func() { got <- b.get(b.t.Context(), "a", "one", b.maker("a")) }()
		synctest.Wait()
		b.Close()
		if item := <-got; item != nil {
			t.Error("a closed pool gave something")
		}
	})
}

// TestAnyUseKeepsTheBounds asks for random keys by random owners, with things that die, fail and take their time.
func TestAnyUseKeepsTheBounds(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			in(t, func(o *pool.Options, w *works) { o.MaxIdle, o.MaxBytes, o.Makers = 12, 10<<20, 3 }, func(b bench) {
				r := rand.New(rand.NewPCG(seed, 1))
				var users sync.WaitGroup
				for range 400 {
					key, owner := fmt.Sprint("key", r.IntN(6)), fmt.Sprint("owner", r.IntN(3))
					wait, hold := time.Duration(r.IntN(300))*time.Millisecond, time.Duration(r.IntN(1000))*time.Millisecond
					users.Go(func() {
						ctx, cancel := context.WithTimeout(b.t.Context(), wait)
						defer cancel()
						if item := b.get(ctx, key, owner, b.maker(key)); item != nil {
							if item.(*thing).key != key {
								t.Errorf("a %s for a %s", item.(*thing).key, key)
							}
							if item.(*thing).over.Load() {
								t.Error("one that was given up")
							}
							time.Sleep(hold)
							item.End()
						}
					})
					switch r.IntN(40) {
					case 0:
						b.fails.Store(!b.fails.Load())
					case 1:
						b.low.Store(!b.low.Load())
					case 2:
						for thing := range b.there() {
							thing.dead.Store(true)
							break
						}
					case 3:
						time.Sleep(time.Duration(r.IntN(100)) * time.Second)
					}
					time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
					synctest.Wait()
					if s := b.State(); s.Idle < 0 || s.Idle > 12 || s.Bytes < 0 || s.Bytes > 10<<20 || int64(s.Idle)<<20 != s.Bytes || s.Making < 0 || s.Making > 3 {
						t.Fatalf("%+v", s)
					}
				}
				users.Wait()
			})
		})
	}
}
