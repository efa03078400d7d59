// Package pool keeps things ready that take long to make, so that who asks for one need not wait. It knows nothing of
// machines: what it keeps is an Item, kept on the shelf of its key.
//
// How many a shelf holds follows the demand: each ask that finds none doubles it, each minute half of what was not needed
// goes. A key has a shelf from its second ask on. Where a quarter of a shelf is left, nothing is made while asks follow one another: they
// need the processors. In sum the shelves are bounded in number and in memory. Where there is no room, owners
// who hold more than a quarter give way first, then the shelf that was asked for longest ago; when the host's memory is short
// they are emptied.
package pool

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Item is one thing that is kept.
type Item interface {
	// Alive says whether it is still good.
	Alive() bool
	// Memory is what it costs while it is kept, in bytes.
	Memory() int64
	// End gives it up; it returns at once.
	End()
}

// Make makes one item.
type Make func(ctx context.Context) (Item, error)

// Options are what a pool needs.
type Options struct {
	MaxIdle  int   // items kept in sum
	MaxBytes int64 // of all items kept together
	Makers   int   // items that are made at once
	Low      func() bool
	Log      *slog.Logger
}

// State is what a pool has and did, for metrics.
type State struct {
	Idle      int    // items kept
	Making    int    // items being made
	Keys      int    // shelves
	Bytes     int64  // memory of the items kept
	Hits      uint64 // asks that got an item at once, or one that was just being made
	Misses    uint64 // asks that got none
	Discarded uint64 // items that were given up unused
}

// Pool keeps items; all methods are safe for concurrent use.
type Pool struct {
	o   Options
	ctx context.Context
	end context.CancelFunc

	mu      sync.Mutex
	shelves map[string]*shelf
	state   State
	wake    chan struct{} // of as many places as there are makers
	makers  sync.WaitGroup
}

type shelf struct {
	key, owner string // owner "": more than one asked
	maker      Make
	asked      int
	want       int
	low        int // the least that was idle since the last minute
	idle       []kept
	making     int
	waiters    []chan Item
	used       time.Time
	rest       time.Time // nothing is made before: making failed, or was for nothing
}

type kept struct {
	Item
	bytes int64
}

const (
	least      = 2                     // of a shelf that is asked for
	breath     = 15 * time.Millisecond // without an ask, before more is made where a quarter is left: who asked works meanwhile
	remembered = 512                   // keys that have no items are remembered, so many
	stale      = 2 * time.Minute       // after which a shelf that nobody asks for is given up
	lookEvery  = 10 * time.Second      // for what is stale and for the host's memory
	afterError = 5 * time.Second
	patience   = 250 * time.Millisecond // for what is being made: then the asker makes its own
)

// New makes a pool; Close ends it.
func New(o Options) *Pool {
	p := &Pool{o: o, shelves: map[string]*shelf{}, wake: make(chan struct{}, max(1, o.Makers))}
	p.ctx, p.end = context.WithCancel(context.Background())
	for range max(1, o.Makers) {
		p.makers.Go(p.keepMaking)
	}
	p.makers.Go(p.keepLooking)
	return p
}

// Take gives an item of the key: one that is kept, or one that is just being made. nil: there is none, and the caller makes
// it; kept says whether there will be some. owner is who asks; maker makes more of them later.
func (p *Pool) Take(ctx context.Context, key, owner string, maker Make) (item Item, kept bool) {
	p.mu.Lock()
	s := p.shelf(key, owner, maker)
	if s == nil {
		p.mu.Unlock()
		return nil, false
	}
	s.asked++
	s.used = time.Now()
	if item := p.pop(s); item != nil {
		p.state.Hits++
		p.mu.Unlock()
		p.stir()
		return item, true
	}
	if s.asked > 1 {
		s.want = min(max(least, 2*s.want), p.o.MaxIdle)
	}
	if s.making > len(s.waiters) {
		w := make(chan Item, 1)
		s.waiters = append(s.waiters, w)
		p.mu.Unlock()
		p.stir()
		return p.wait(ctx, s, w), true
	}
	p.state.Misses++
	kept = s.want > 0
	p.mu.Unlock()
	p.stir()
	return nil, kept
}

// Spare gives an item of the key that is kept, for who would rather have another: no more are made for that. nil: there is none.
func (p *Pool) Spare(key string) Item {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shelves[key]
	if s == nil {
		return nil
	}
	return p.pop(s)
}

// wait waits for an item that is being made; nil where that failed.
func (p *Pool) wait(ctx context.Context, s *shelf, w chan Item) Item {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var item Item
	select {
	case item = <-w:
	case <-ctx.Done():
		p.mu.Lock()
		s.waiters = slices.DeleteFunc(s.waiters, func(other chan Item) bool { return other == w })
		p.mu.Unlock()
		select {
		case item = <-w: // it came meanwhile
		default:
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if item == nil {
		p.state.Misses++
	} else {
		p.state.Hits++
	}
	return item
}

func (p *Pool) shelf(key, owner string, maker Make) *shelf {
	if p.ctx.Err() != nil || p.o.MaxIdle <= 0 {
		return nil
	}
	s := p.shelves[key]
	if s == nil {
		if len(p.shelves) >= remembered {
			p.forget(p.leastMissed(owner))
		}
		s = &shelf{key: key, owner: owner}
		p.shelves[key] = s
	}
	if s.owner != owner {
		s.owner = ""
	}
	s.maker = maker
	return s
}

// leastMissed is the shelf that is forgotten for a new one: of those that have nothing, the owner's own before others'.
func (p *Pool) leastMissed(owner string) *shelf {
	empty := func(s *shelf) bool { return len(s.idle) == 0 && s.making == 0 }
	for _, fits := range []func(*shelf) bool{
		func(s *shelf) bool { return empty(s) && s.owner == owner },
		empty,
		func(s *shelf) bool { return s.owner == owner },
	} {
		if s := p.oldest(fits); s != nil {
			return s
		}
	}
	return p.oldest(func(*shelf) bool { return true })
}

// GiveWay gives the shelf up that was asked for longest ago, for who lacks what its items hold; false where there is nothing.
func (p *Pool) GiveWay() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.oldest(func(s *shelf) bool { return len(s.idle) > 0 })
	if s == nil {
		return false
	}
	p.shrink(s, len(s.idle))
	return true
}

// pop takes the oldest item that is still good.
func (p *Pool) pop(s *shelf) Item {
	for len(s.idle) > 0 {
		k := p.takeOff(s, 0)
		s.low = min(s.low, len(s.idle))
		if k.Alive() {
			return k.Item
		}
		p.discard(k)
	}
	s.low = 0
	return nil
}

// takeOff takes an item off its shelf.
func (p *Pool) takeOff(s *shelf, i int) kept {
	k := s.idle[i]
	s.idle = slices.Delete(s.idle, i, i+1)
	p.state.Idle--
	p.state.Bytes -= k.bytes
	return k
}

func (p *Pool) discard(k kept) {
	p.state.Discarded++
	k.End()
}

// stir lets the makers look.
func (p *Pool) stir() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Pool) keepMaking() {
	for {
		for p.makeOne() {
		}
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return
		}
	}
}

// makeOne makes an item for the neediest shelf; false where there is nothing to do.
func (p *Pool) makeOne() bool {
	p.mu.Lock()
	s := p.neediest()
	if s == nil {
		p.mu.Unlock()
		return false
	}
	s.making++
	p.state.Making++
	maker := s.maker
	p.mu.Unlock()
	item, err := maker(p.ctx)
	var bytes int64
	if err == nil {
		bytes = item.Memory()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.making--
	p.state.Making--
	switch {
	case err != nil:
		if p.ctx.Err() == nil {
			p.o.Log.Debug("the pool could not make what it is asked for", "error", err) // the asker that makes its own hears of it
		}
		s.rest = time.Now().Add(afterError)
		for _, w := range s.waiters[min(s.making, len(s.waiters)):] {
			close(w)
		}
		s.waiters = s.waiters[:min(s.making, len(s.waiters))]
	case len(s.waiters) > 0:
		s.waiters[0] <- item
		s.waiters = s.waiters[1:]
	case p.ctx.Err() != nil || p.shelves[s.key] != s || !p.hasRoom(s, bytes):
		p.discard(kept{item, bytes})
		s.want, s.rest = min(s.want, len(s.idle)), time.Now().Add(afterError)
	default:
		s.idle = append(s.idle, kept{item, bytes})
		p.state.Idle++
		p.state.Bytes += bytes
	}
	return true
}

// neediest is the shelf that lacks most of what it is to hold and for which there is room, or is made some; of two, the one
// that was asked for last.
func (p *Pool) neediest() *shelf {
	if p.ctx.Err() != nil {
		return nil
	}
	var which *shelf
	most, now, later := 0.0, time.Now(), false
	for _, s := range p.shelves {
		lacks := s.want - len(s.idle) - s.making + len(s.waiters)
		if lacks <= 0 || !now.After(s.rest) {
			continue
		}
		if 4*len(s.idle) >= s.want && now.Sub(s.used) < breath {
			later = true
			continue
		}
		if share := float64(lacks) / float64(s.want+len(s.waiters)); which == nil || share > most || share == most && s.used.After(which.used) {
			which, most = s, share
		}
	}
	if which == nil && later {
		time.AfterFunc(breath, p.stir)
	}
	if which == nil || p.o.Low() {
		return nil
	}
	if p.state.Idle+p.state.Making >= p.o.MaxIdle {
		victim := p.victim(which)
		if victim == nil {
			return nil
		}
		p.shrink(victim, 1)
	}
	return which
}

// hasRoom makes room for an item of the shelf where the memory of all is used up.
func (p *Pool) hasRoom(s *shelf, bytes int64) bool {
	if bytes > p.o.MaxBytes/2 { // too dear to keep
		return false
	}
	for p.state.Bytes+bytes > p.o.MaxBytes {
		victim := p.victim(s)
		if victim == nil {
			return false
		}
		p.shrink(victim, 1)
	}
	return true
}

// victim is the shelf that gives way to another: the one that was asked for longest ago of those owners who hold more than a quarter
// of all, if the other's does not; else of all that were asked for before it.
func (p *Pool) victim(of *shelf) *shelf {
	held := map[string]int{}
	for _, s := range p.shelves {
		held[s.owner] += len(s.idle) + s.making
	}
	over := func(s *shelf) bool { return s.owner != "" && held[s.owner] > p.o.MaxIdle/4 }
	switch {
	case over(of):
		return p.oldest(func(s *shelf) bool {
			return s != of && s.owner == of.owner && len(s.idle) > 0 && s.used.Before(of.used)
		})
	default:
		if s := p.oldest(func(s *shelf) bool { return over(s) && len(s.idle) > 0 }); s != nil {
			return s
		}
		return p.oldest(func(s *shelf) bool { return s != of && len(s.idle) > 0 && s.used.Before(of.used) })
	}
}

// oldest is the shelf that was asked for longest ago of those that fit.
func (p *Pool) oldest(fits func(*shelf) bool) *shelf {
	var which *shelf
	for _, s := range p.shelves {
		if fits(s) && (which == nil || s.used.Before(which.used)) {
			which = s
		}
	}
	return which
}

// shrink gives n items of a shelf up, which then holds no more than it has.
func (p *Pool) shrink(s *shelf, n int) {
	p.giveUp(s, n)
	s.want = min(s.want, len(s.idle))
}

func (p *Pool) giveUp(s *shelf, n int) {
	for range min(n, len(s.idle)) {
		p.discard(p.takeOff(s, 0))
	}
	s.low = min(s.low, len(s.idle))
}

func (p *Pool) forget(s *shelf) {
	p.shrink(s, len(s.idle))
	delete(p.shelves, s.key)
}

func (p *Pool) keepLooking() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
			p.look(time.Now(), n%6 == 0)
			p.stir()
		case <-p.ctx.Done():
			return
		}
	}
}

// look gives up what is stale, and what the host's memory has no room for; each minute half of what was not needed.
func (p *Pool) look(now time.Time, minute bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shelves {
		for i := len(s.idle) - 1; i >= 0; i-- {
			if !s.idle[i].Alive() {
				p.discard(p.takeOff(s, i))
			}
		}
		switch {
		case now.Sub(s.used) > stale && s.making == 0:
			p.forget(s)
		case minute:
			p.shrink(s, (s.low+1)/2)
			s.low = len(s.idle)
		}
	}
	if p.o.Low() {
		for _, s := range p.shelves {
			p.shrink(s, len(s.idle))
		}
	}
}

// State says what the pool has and did.
func (p *Pool) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state
	s.Keys = len(p.shelves)
	return s
}

// Close gives everything up and waits for what is being made.
func (p *Pool) Close() {
	p.end()
	p.makers.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.shelves {
		p.forget(s)
	}
}
