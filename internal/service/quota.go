package service

import (
	"sync"

	"outpost.run/outpost/internal/policy"
	"outpost.run/outpost/sandbox"
)

// use counts what each namespace has of its quota.
type use struct {
	quota     policy.Quota
	mu        sync.Mutex
	sandboxes map[string]int
	execs     map[string]int
}

func newUse(q policy.Quota) *use {
	return &use{quota: q, sandboxes: map[string]int{}, execs: map[string]int{}}
}

// adopt counts a sandbox that was there before the server.
func (u *use) adopt(namespace string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sandboxes[namespace]++
}

func (u *use) takeSandbox(namespace string) error {
	return u.take(u.sandboxes, namespace, u.quota.Sandboxes, "has its %d sandboxes already (policy.quota.sandboxes); delete some first")
}

func (u *use) takeExec(namespace string) error {
	return u.take(u.execs, namespace, u.quota.ConcurrentExecs, "has %d execs under way already (policy.quota.concurrent_execs); wait for some to end")
}

func (u *use) giveSandbox(namespace string) { u.give(u.sandboxes, namespace) }
func (u *use) giveExec(namespace string)    { u.give(u.execs, namespace) }

func (u *use) of(namespace string) (sandboxes, execs int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sandboxes[namespace], u.execs[namespace]
}

// allExecs are those of all namespaces.
func (u *use) allExecs() (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, execs := range u.execs {
		n += execs
	}
	return n
}

func (u *use) take(count map[string]int, namespace string, most int, says string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if count[namespace] >= most {
		e := sandbox.Errorf(sandbox.QuotaExceeded, nil, "the namespace "+says, most)
		e.RetryAfterSecs = 1
		return e
	}
	count[namespace]++
	return nil
}

func (u *use) give(count map[string]int, namespace string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if count[namespace]--; count[namespace] <= 0 {
		delete(count, namespace)
	}
}
