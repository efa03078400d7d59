package image

import (
	"context"
	"errors"
	"sync"
	"time"
)

// How slow a registry may be; variables for the tests.
var (
	slowest = int64(64 << 10) // bytes a second, of the time that is spent waiting for them
	paceFor = time.Minute     // of waiting, after which it is judged
	// leisure is how long an answer may take to begin, uncounted: images of many small layers are no slow ones.
	leisure = time.Second
)

var errSlow = errors.New("it comes too slowly")

// pace is how much a pull has waited, and what came, since it was judged last.
type pace struct {
	mu     sync.Mutex
	waited time.Duration
	bytes  int64
	slow   bool
}

type paceKey struct{}

// withPace lets what is asked with the context be of one pace.
func withPace(ctx context.Context) context.Context { return context.WithValue(ctx, paceKey{}, &pace{}) }

// note takes down what waiting brought. Error: errSlow, too little, from then on.
func note(ctx context.Context, waited time.Duration, bytes int) error {
	p, _ := ctx.Value(paceKey{}).(*pace)
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waited += max(0, waited)
	p.bytes += int64(bytes)
	if p.waited >= paceFor {
		p.slow = p.slow || float64(p.bytes) < float64(slowest)*p.waited.Seconds()
		p.waited, p.bytes = 0, 0
	}
	if p.slow {
		return errSlow
	}
	return nil
}
