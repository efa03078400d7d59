package image

import (
	"context"
	"sync"
)

// turns are places for what is done at once, of which one namespace has a few.
type turns struct {
	all   chan struct{} // nil: as many as there are namespaces
	ofOne int

	mu  sync.Mutex
	own map[string]*own
}

// own is what one namespace has of them.
type own struct {
	turns chan struct{}
	users int // that have a turn or wait for it; none: it is forgotten
}

func newTurns(all, ofOne int) *turns {
	t := &turns{ofOne: ofOne, own: map[string]*own{}}
	if all > 0 {
		t.all = make(chan struct{}, all)
	}
	return t
}

// take waits for a turn: first one of the namespace's, so that it waits for others with no more than it may have. Error:
// ctx's.
func (t *turns) take(ctx context.Context, namespace string) (done func(), err error) {
	t.mu.Lock()
	o := t.own[namespace]
	if o == nil {
		o = &own{turns: make(chan struct{}, t.ofOne)}
		t.own[namespace] = o
	}
	o.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if o.users--; o.users == 0 {
			delete(t.own, namespace)
		}
	}
	select {
	case o.turns <- struct{}{}:
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
	if t.all != nil {
		select {
		case t.all <- struct{}{}:
		case <-ctx.Done():
			<-o.turns
			forget()
			return nil, ctx.Err()
		}
	}
	return func() {
		if t.all != nil {
			<-t.all
		}
		<-o.turns
		forget()
	}, nil
}
