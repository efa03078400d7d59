package server

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"outpost.run/outpost/internal/service"
	"outpost.run/outpost/sandbox"
)

// limiters hold a bucket for each credential that called lately.
type limiters struct {
	perMinute, burst int
	mu               sync.Mutex
	buckets          map[string]*rate.Limiter
}

// manyBuckets is when full buckets, which say nothing, are dropped.
const manyBuckets = 4096

func newLimiters(perMinute, burst int) *limiters {
	return &limiters{perMinute: perMinute, burst: burst, buckets: map[string]*rate.Limiter{}}
}

// take counts one call of the caller and writes the headers that say so. Errors: RateLimited.
func (l *limiters) take(h http.Header, c service.Caller) error {
	perMinute, burst := l.perMinute, l.burst
	if c.RateLimit != nil {
		perMinute, burst = *c.RateLimit, max(10, *c.RateLimit/10)
	}
	if perMinute == 0 {
		return nil
	}
	bucket := l.bucket(c.ID, perMinute, max(1, burst))
	passes := bucket.Allow()
	left, perSecond := bucket.Tokens(), float64(bucket.Limit())
	h.Set("X-RateLimit-Limit", strconv.Itoa(perMinute))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(int(max(0, left))))
	h.Set("X-RateLimit-Reset", strconv.Itoa(int(math.Ceil((float64(bucket.Burst())-left)/perSecond))))
	if passes {
		return nil
	}
	e := sandbox.Errorf(sandbox.RateLimited, nil, "this credential makes more than %d calls a minute", perMinute)
	e.RetryAfterSecs = max(1, int(math.Ceil((1-left)/perSecond)))
	return e
}

func (l *limiters) bucket(id string, perMinute, burst int) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.buckets[id]; b != nil {
		return b
	}
	if len(l.buckets) >= manyBuckets {
		for id, b := range l.buckets {
			if b.Tokens() >= float64(b.Burst()) {
				delete(l.buckets, id)
			}
		}
	}
	b := rate.NewLimiter(rate.Every(time.Minute/time.Duration(perMinute)), burst)
	l.buckets[id] = b
	return b
}
